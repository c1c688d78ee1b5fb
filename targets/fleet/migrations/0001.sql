-- BYTES is BLOB or BYTEA. The tenant is part of every key.
CREATE TABLE settings (name TEXT PRIMARY KEY, value BYTES NOT NULL);
CREATE TABLE tenants (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, created BIGINT NOT NULL, settings TEXT NOT NULL,
    audited BIGINT NOT NULL, head TEXT NOT NULL, alerted BIGINT NOT NULL, stored BIGINT NOT NULL);
INSERT INTO tenants VALUES ('system', 'The installation', 0, '{}', 0, '', 0, 0);
CREATE TABLE roots (
    tenant TEXT NOT NULL REFERENCES tenants, version BIGINT NOT NULL, document BYTES NOT NULL,
    PRIMARY KEY (tenant, version));
CREATE TABLE tokens (
    tenant TEXT NOT NULL REFERENCES tenants, name TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, role TEXT NOT NULL,
    created BIGINT NOT NULL, revoked BIGINT, PRIMARY KEY (tenant, name));
CREATE TABLE devices (
    tenant TEXT NOT NULL REFERENCES tenants, id TEXT NOT NULL UNIQUE, pubkey BYTES NOT NULL, target TEXT NOT NULL,
    attributes TEXT NOT NULL, ring BIGINT, enrolled BIGINT NOT NULL, seen BIGINT NOT NULL, nonce BIGINT NOT NULL,
    boot BIGINT NOT NULL, seq BIGINT NOT NULL, missed BIGINT NOT NULL, model TEXT NOT NULL, running TEXT,
    phase TEXT NOT NULL, last_digest TEXT, last_outcome TEXT, PRIMARY KEY (tenant, id));
CREATE TABLE packages (
    tenant TEXT NOT NULL REFERENCES tenants, digest TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
    number BIGINT NOT NULL, counter BIGINT NOT NULL, target TEXT NOT NULL, len BIGINT NOT NULL, hash TEXT NOT NULL,
    document BYTES NOT NULL, manifest TEXT NOT NULL, published BIGINT NOT NULL, PRIMARY KEY (tenant, digest));
CREATE UNIQUE INDEX packages_by_number ON packages (tenant, name, number);
CREATE TABLE deltas (
    tenant TEXT NOT NULL, base TEXT NOT NULL, digest TEXT NOT NULL, hash TEXT NOT NULL, len BIGINT NOT NULL,
    PRIMARY KEY (tenant, base, digest));
CREATE TABLE sequences (
    tenant TEXT NOT NULL, name TEXT NOT NULL, value BIGINT NOT NULL, PRIMARY KEY (tenant, name));
-- state and evidence are dunlin-rollout's, in postcard; version rises with every write, and guards it.
CREATE TABLE rollouts (
    tenant TEXT NOT NULL REFERENCES tenants, id TEXT NOT NULL, name TEXT NOT NULL, candidates TEXT NOT NULL,
    base TEXT, request TEXT NOT NULL, state BYTES NOT NULL, evidence BYTES NOT NULL, phase TEXT NOT NULL,
    stage BIGINT NOT NULL, live BIGINT NOT NULL, day_base BIGINT NOT NULL, days BIGINT NOT NULL, started BIGINT NOT NULL,
    entered BIGINT NOT NULL, started_by TEXT NOT NULL, created BIGINT NOT NULL, sequence BIGINT NOT NULL,
    signed BIGINT NOT NULL, expires BIGINT NOT NULL, takes_back BIGINT NOT NULL, verdicts BIGINT NOT NULL,
    version BIGINT NOT NULL, PRIMARY KEY (tenant, id));
CREATE INDEX rollouts_live ON rollouts (live, tenant);
CREATE TABLE exposures (
    tenant TEXT NOT NULL, rollout TEXT NOT NULL, device TEXT NOT NULL, arm BIGINT NOT NULL, assigned BIGINT NOT NULL,
    seen BIGINT NOT NULL, polls BIGINT NOT NULL, offered BIGINT, downloaded BIGINT, activated BIGINT, reported BIGINT,
    runs BIGINT NOT NULL, outcome TEXT, was_bad BIGINT NOT NULL, valued BIGINT NOT NULL,
    PRIMARY KEY (tenant, rollout, device));
CREATE INDEX exposures_by_device ON exposures (tenant, device);
CREATE TABLE device_days (
    tenant TEXT NOT NULL, rollout TEXT NOT NULL, day BIGINT NOT NULL, device TEXT NOT NULL, bad BIGINT NOT NULL,
    reports BIGINT NOT NULL, metrics TEXT NOT NULL, PRIMARY KEY (tenant, rollout, day, device));
-- As received: what this version cannot read a later one may.
CREATE TABLE reports (
    tenant TEXT NOT NULL, device TEXT NOT NULL, boot BIGINT NOT NULL, seq BIGINT NOT NULL, arrived BIGINT NOT NULL,
    digest TEXT, arm TEXT NOT NULL, known BIGINT NOT NULL, payload BYTES NOT NULL,
    PRIMARY KEY (tenant, device, boot, seq));
CREATE INDEX reports_by_digest ON reports (tenant, digest, arrived);
CREATE TABLE verdicts (
    tenant TEXT NOT NULL, rollout TEXT NOT NULL, n BIGINT NOT NULL, time BIGINT NOT NULL, stage BIGINT NOT NULL,
    verdict TEXT NOT NULL, reason TEXT NOT NULL, numbers TEXT NOT NULL, PRIMARY KEY (tenant, rollout, n));
CREATE TABLE approvals (
    tenant TEXT NOT NULL, rollout TEXT NOT NULL, attempt BIGINT NOT NULL, stage BIGINT NOT NULL, who TEXT NOT NULL,
    time BIGINT NOT NULL, PRIMARY KEY (tenant, rollout, attempt, stage));
CREATE TABLE alerts (
    tenant TEXT NOT NULL, n BIGINT NOT NULL, time BIGINT NOT NULL, rollout TEXT NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL, detail TEXT NOT NULL, acknowledged BIGINT, acknowledged_by TEXT, delivered BIGINT NOT NULL,
    attempts BIGINT NOT NULL, PRIMARY KEY (tenant, n));
CREATE INDEX alerts_to_deliver ON alerts (delivered, attempts);
CREATE TABLE flags (
    tenant TEXT PRIMARY KEY REFERENCES tenants, version BIGINT NOT NULL, request TEXT NOT NULL,
    document BYTES NOT NULL, updated BIGINT NOT NULL);
CREATE TABLE audit (
    tenant TEXT NOT NULL REFERENCES tenants, n BIGINT NOT NULL, time BIGINT NOT NULL, actor TEXT NOT NULL,
    action TEXT NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (tenant, n));
