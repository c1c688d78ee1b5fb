-- Of people at the dashboard. The secret in their browser is known by its hash.
CREATE TABLE sessions (
    hash TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants, token TEXT NOT NULL, expires BIGINT NOT NULL);
CREATE INDEX sessions_by_end ON sessions (expires);
-- Sums over the reports that came in an hour, by package; written once, when the hour is over. An hour in which nothing
-- came has a row without a package.
CREATE TABLE hours (
    tenant TEXT NOT NULL REFERENCES tenants, hour BIGINT NOT NULL, digest TEXT NOT NULL, devices BIGINT NOT NULL,
    reports BIGINT NOT NULL, inferences BIGINT NOT NULL, errors BIGINT NOT NULL, late BIGINT NOT NULL,
    resets BIGINT NOT NULL, PRIMARY KEY (tenant, hour, digest));
CREATE INDEX reports_by_arrival ON reports (tenant, arrived);
-- How many devices ran what at some moment of an hour.
CREATE TABLE census (
    tenant TEXT NOT NULL REFERENCES tenants, hour BIGINT NOT NULL, running TEXT NOT NULL, devices BIGINT NOT NULL,
    PRIMARY KEY (tenant, hour, running));
