-- How the candidate runs on a device that has it and serves by it not simply: 1 in the shadow, 2 by the hour in turn with the
-- base; 0 otherwise.
ALTER TABLE exposures ADD COLUMN beside BIGINT NOT NULL DEFAULT 0;
UPDATE exposures SET beside = 1, outcome = NULL WHERE outcome = 'Shadow';
-- A day on which a device took turns (paired 1) has two halves: bad, reports and metrics are the candidate's hours', these
-- the base's.
ALTER TABLE device_days ADD COLUMN paired BIGINT NOT NULL DEFAULT 0;
ALTER TABLE device_days ADD COLUMN base_bad BIGINT NOT NULL DEFAULT 0;
ALTER TABLE device_days ADD COLUMN base_reports BIGINT NOT NULL DEFAULT 0;
ALTER TABLE device_days ADD COLUMN base_metrics TEXT NOT NULL DEFAULT '{}';
