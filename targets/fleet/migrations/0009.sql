-- Who acted on a rollout, newest first, without reading the whole log.
CREATE INDEX audit_by_object ON audit (tenant, object, n);
-- Inferences by bucket of latency (the buckets of dunlin-telemetry, from 0 on), as a JSON list.
ALTER TABLE hours ADD COLUMN latency TEXT NOT NULL DEFAULT '[]';
