-- Packages that devices are to leave: those of rollouts that were rolled back, and of several candidates those that were not
-- chosen. An order outlives the rollout that gave it.
CREATE TABLE recalls (
    tenant TEXT NOT NULL REFERENCES tenants, digest TEXT NOT NULL, name TEXT NOT NULL, target TEXT NOT NULL,
    -- What devices run instead; NULL: the rollout had no base.
    base TEXT,
    -- 1: devices that serve it keep it, and only downloads and shadows end.
    keeps BIGINT NOT NULL,
    rollout TEXT NOT NULL, ordered_by TEXT NOT NULL, ordered BIGINT NOT NULL,
    -- Sequence of the order, and sequence, time and end of the documents in force.
    ordered_sequence BIGINT NOT NULL, sequence BIGINT NOT NULL, signed BIGINT NOT NULL, expires BIGINT NOT NULL,
    -- 1 while devices may still run it.
    open BIGINT NOT NULL,
    PRIMARY KEY (tenant, digest));
CREATE INDEX recalls_open ON recalls (open, tenant);
-- Devices that were found running a recalled package: when they were offered the way back, when they were back, and why they
-- cannot go back.
CREATE TABLE recalled_devices (
    tenant TEXT NOT NULL, digest TEXT NOT NULL, device TEXT NOT NULL, told BIGINT, back BIGINT, blocked TEXT,
    PRIMARY KEY (tenant, digest, device));
CREATE INDEX recalled_devices_out ON recalled_devices (tenant, device) WHERE back IS NULL;
CREATE INDEX devices_by_running ON devices (tenant, running);
-- 1: the device has a candidate, and the rollout wants it to.
ALTER TABLE exposures ADD COLUMN kept BIGINT NOT NULL DEFAULT 0;
