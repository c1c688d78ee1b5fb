-- When a device was first heard of in this stage or epoch: from then on it is compared, in either arm.
ALTER TABLE exposures ADD COLUMN joined BIGINT NOT NULL DEFAULT 0;
-- How a candidate had ended on the device before this rollout had to do with it.
ALTER TABLE exposures ADD COLUMN ended_before TEXT;
-- Where a device does not take turns, base_bad and base_reports are from now on what it reported about anything else than what
-- its arm runs, and bad, reports and metrics only about that. pending is 1 while something of the day is not yet
-- counted, 2 while it is being counted; told is 1 when the day was counted as one that reported.
ALTER TABLE device_days ADD COLUMN pending BIGINT NOT NULL DEFAULT 0;
ALTER TABLE device_days ADD COLUMN told BIGINT NOT NULL DEFAULT 0;
UPDATE device_days SET pending = 1 WHERE late = 1 OR EXISTS (SELECT 1 FROM rollouts r
    WHERE r.tenant = device_days.tenant AND r.id = device_days.rollout AND device_days.day >= r.days);
UPDATE device_days SET told = 1 WHERE pending = 0 AND reports > 0;
ALTER TABLE device_days DROP COLUMN late;
CREATE INDEX device_days_pending ON device_days (tenant, rollout, day, device) WHERE pending > 0;
-- When the epoch began, and the number of its first day.
ALTER TABLE rollouts ADD COLUMN epoch_began BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollouts ADD COLUMN epoch_day BIGINT NOT NULL DEFAULT 0;
UPDATE rollouts SET epoch_began = entered, epoch_day = day_base;
UPDATE exposures SET joined = (SELECT r.entered FROM rollouts r WHERE r.tenant = exposures.tenant
    AND r.id = exposures.rollout) WHERE EXISTS (SELECT 1 FROM rollouts r WHERE r.tenant = exposures.tenant
    AND r.id = exposures.rollout AND exposures.seen >= r.entered);
