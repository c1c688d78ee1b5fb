-- Drift by package, cohort and day of UTC; verdicts as JSON. A day that was judged for all packages has a row without one.
CREATE TABLE drift_windows (
    tenant TEXT NOT NULL REFERENCES tenants, digest TEXT NOT NULL, cohort TEXT NOT NULL, number BIGINT NOT NULL,
    devices BIGINT NOT NULL, level TEXT NOT NULL, verdicts TEXT NOT NULL,
    PRIMARY KEY (tenant, digest, cohort, number));
-- What follows from the windows so far: levels of the last, and alarms that stand.
CREATE TABLE drift_cohorts (
    tenant TEXT NOT NULL REFERENCES tenants, digest TEXT NOT NULL, cohort TEXT NOT NULL, number BIGINT NOT NULL,
    standing BIGINT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (tenant, digest, cohort));
-- When the next attempt to deliver an alert is due.
ALTER TABLE alerts ADD COLUMN due BIGINT NOT NULL DEFAULT 0;
-- Hours that were sent to a collector, or that some replica is sending.
CREATE TABLE exports (
    tenant TEXT NOT NULL REFERENCES tenants, hour BIGINT NOT NULL, due BIGINT NOT NULL, sent BIGINT NOT NULL,
    PRIMARY KEY (tenant, hour));
-- Whether a device's reports came after the day was closed: 1, and once they are counted too 2.
ALTER TABLE device_days ADD COLUMN late BIGINT NOT NULL DEFAULT 0;
