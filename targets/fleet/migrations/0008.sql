-- An alert with a key is a condition: it is open until it no longer holds, and there is at most one open alert for a key.
-- Alerts without a key are events. severity is empty for what was raised before this column existed.
ALTER TABLE alerts ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE alerts ADD COLUMN severity TEXT NOT NULL DEFAULT '';
ALTER TABLE alerts ADD COLUMN updated BIGINT NOT NULL DEFAULT 0;
ALTER TABLE alerts ADD COLUMN resolved BIGINT;
CREATE UNIQUE INDEX alerts_open_by_key ON alerts (tenant, key) WHERE key <> '' AND resolved IS NULL;
-- Sequence of the flag document that a device had at its last poll.
ALTER TABLE devices ADD COLUMN flags BIGINT NOT NULL DEFAULT 0;
-- Where inference is stopped: the whole fleet (model is empty) or one model; who, when and why. sequence is that of the
-- first flag document with the stop.
CREATE TABLE serving_stops (
    tenant TEXT NOT NULL REFERENCES tenants, model TEXT NOT NULL, since BIGINT NOT NULL, who TEXT NOT NULL,
    reason TEXT NOT NULL, sequence BIGINT NOT NULL, PRIMARY KEY (tenant, model));
-- Hourly samples of what alert rules watch, for their baselines: bad of total, by tenant, rule and model.
CREATE TABLE alert_samples (
    tenant TEXT NOT NULL REFERENCES tenants, rule TEXT NOT NULL, model TEXT NOT NULL, hour BIGINT NOT NULL,
    bad BIGINT NOT NULL, total BIGINT NOT NULL, PRIMARY KEY (tenant, rule, model, hour));
-- The last evaluation of each alert rule. status is ok, firing or no_data; quiet_since is when the condition was last seen
-- to stop holding, 0 while it holds.
CREATE TABLE alert_rules (
    tenant TEXT NOT NULL REFERENCES tenants, rule TEXT NOT NULL, model TEXT NOT NULL, evaluated BIGINT NOT NULL,
    status TEXT NOT NULL, bad BIGINT NOT NULL, total BIGINT NOT NULL, threshold DOUBLE PRECISION NOT NULL,
    baseline DOUBLE PRECISION, samples BIGINT NOT NULL, quiet_since BIGINT NOT NULL,
    PRIMARY KEY (tenant, rule, model));
