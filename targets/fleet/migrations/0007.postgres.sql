-- Rollouts that were rolled back, or made drafts again after that, before there were recalls.
INSERT INTO recalls SELECT r.tenant, c.value, r.name, r.target, r.base, 1 - r.takes_back, r.id, 'server', r.signed,
    r.sequence, r.sequence, r.signed, r.expires, 1
    FROM rollouts r, json_array_elements_text(r.candidates::json) AS c(value)
    WHERE r.phase = 'RolledBack' AND r.live = 1
    ON CONFLICT DO NOTHING;
INSERT INTO recalls SELECT r.tenant, c.value, r.name, r.target, r.base, 0, r.id, 'server', r.signed,
    r.sequence, r.sequence, r.signed, r.expires, 1
    FROM rollouts r, json_array_elements_text(r.candidates::json) AS c(value)
    WHERE r.phase = 'Draft' AND r.sequence > 0 AND r.base IS NOT NULL
    ON CONFLICT DO NOTHING;
