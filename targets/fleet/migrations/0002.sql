-- Of people at the dashboard. The secret in their browser is known by its hash.
CREATE TABLE sessions (
    hash TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenants, token TEXT NOT NULL, expires BIGINT NOT NULL);
CREATE INDEX sessions_by_end ON sessions (expires);
-- How many devices ran what, hour by hour.
CREATE TABLE census (
    tenant TEXT NOT NULL REFERENCES tenants, hour BIGINT NOT NULL, model TEXT NOT NULL, running TEXT NOT NULL,
    devices BIGINT NOT NULL, PRIMARY KEY (tenant, hour, model, running));
