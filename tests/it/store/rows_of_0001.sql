-- Rows as a program of schema 1 leaves them when it is killed.
INSERT INTO events (seq, id, source, provider, type, provider_type, event_id, task_id, received_at, verification, target, headers, body) VALUES
    (1, '019bc185-0000-7000-8000-000000000001', 'manus', 'manus', 'task_stopped', 'task_stopped', 'e1', 't1', '2026-01-15T11:00:00.000Z', 'signature', '/webhooks/manus', '[["host","hooks.example.com"]]', '{"event_id":"e1"}'),
    (2, '019bc185-0000-7000-8000-000000000002', 'manus', 'manus', 'task_stopped', 'task_stopped', 'e2', 't2', '2026-01-15T11:30:00.000Z', 'signature', '/webhooks/manus', '[]', X'ff');
INSERT INTO event_keys (key, event) VALUES (X'634155a886181c948f291f4f9ca3612d', 1);
INSERT INTO new_keys (key, event) VALUES (X'295edbd55fce57f061e40b89b367b46f', 2);
UPDATE intake SET taken = 2;
INSERT INTO tasks (seq, source, task_id, proof, proven_at, first_seen_at, fetched_at) VALUES
    (1, 'manus', 't1', 'listed', '2026-01-15T11:00:01.000Z', '2026-01-15T11:00:00.000Z', '2026-01-15T11:00:02.000Z'),
    (2, 'manus', 't2', NULL, NULL, '2026-01-15T11:30:00.000Z', NULL);
INSERT INTO task_events (task, event) VALUES (1, 1), (2, 2);
INSERT INTO fetched_tasks (task_seq, task, files, raw) VALUES (1, '{"id":"t1"}', '[]', '{}');
INSERT INTO open_events (event, subject, state) VALUES (2, 2, 'proving');
INSERT INTO jobs (id, kind, queue, subject, state, due_at, attempt, reasons, created_at) VALUES
    (4, 'prove', 'manus', 2, 'leased', NULL, 2, '["502"]', '2026-01-15T11:30:00.000Z');
INSERT INTO deliveries (seq, id, event, destination, route, lane, state, reason, created_at, ended_at) VALUES
    (1, '019bc185-0000-7000-8000-00000000000a', 1, 'crm', 'all', 1, 'delivered', NULL, '2026-01-15T11:00:02.000Z', '2026-01-15T11:00:03.000Z'),
    (2, '019bc185-0000-7000-8000-00000000000b', 1, 'log', 'all', 1, 'dead', '410 Gone', '2026-01-15T11:00:02.000Z', '2026-01-15T11:00:03.000Z');
INSERT INTO delivery_bodies (delivery, body) VALUES (1, '{}'), (2, '{}');
INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) VALUES
    (1, 1, '2026-01-15T11:00:02.000Z', '2026-01-15T11:00:03.000Z', 'delivered', '200 OK'),
    (2, 1, '2026-01-15T11:00:02.000Z', '2026-01-15T11:00:03.000Z', 'failed', '410 Gone');
INSERT INTO rejections (received_at, source, code, explanation, target, headers, body_bytes, body) VALUES
    ('2026-01-15T10:00:00.000Z', 'manus', 'signature_invalid', NULL, '/webhooks/manus', '[]', 2, '{}');
INSERT INTO verification_keys (source, pem, loaded_at) VALUES ('manus', 'PEM', '2026-01-15T10:00:00.000Z');
