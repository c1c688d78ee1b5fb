-- What a rollout's packages are for.
ALTER TABLE rollouts ADD COLUMN target TEXT NOT NULL DEFAULT 'any';
UPDATE rollouts SET target = COALESCE((SELECT MIN(packages.target) FROM packages
    WHERE packages.tenant = rollouts.tenant AND rollouts.candidates LIKE '["' || packages.digest || '"%'), 'any');
-- The number of the signed document, which only rises; the version is the API's.
ALTER TABLE flags ADD COLUMN sequence BIGINT NOT NULL DEFAULT 0;
UPDATE flags SET sequence = version;
-- Devices that are not believed any more, should they enrol again.
CREATE TABLE revoked_devices (
    tenant TEXT NOT NULL REFERENCES tenants, id TEXT NOT NULL, pubkey BYTES NOT NULL, who TEXT NOT NULL,
    time BIGINT NOT NULL, PRIMARY KEY (tenant, id));
