//! The rows of a store that has long been in use: events of tasks, each delivered, spread over a month.
//!
//! What must hold: they are as the program makes them, so that pages read what they would.

use super::super::fill::Rows;

/// The source, and the destination.
pub(super) const NAME: &str = "bench";
/// Events of one task.
pub(super) const EACH: u32 = 4;

/// All of them.
pub(super) const ROWS: Rows = Rows {
    sqlite: &SQLITE,
    postgres: &POSTGRES,
    tables: &["events", "tasks", "fetched_tasks", "task_events", "deliveries", "delivery_bodies", "attempts"],
};

/// What makes the events from one number to another: ?3 is now, ?4 how many there are in all, over 30 days. Of each four one is a stop;
/// one task in 500 waits, one in 100 failed; one delivery in 1,000 is dead.
const SQLITE: [&str; 9] = [
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO events (seq, id, source, provider, type, provider_type, event_id, task_id, received_at, verification, target, headers, body) \
     SELECT i, printf('%08x-0000-7000-8000-%012x', i, i), 'bench', 'custom', \
     iif(i % 4 = 0, 'task_stopped', iif(i % 4 = 1, 'task_created', 'task_progress')), NULL, 'evt-' || i, 'task-' || ((i + 3) / 4), \
     strftime('%Y-%m-%dT%H:%M:%fZ', ?3, '-' || ((?4 - i) * 2592000.0 / ?4) || ' seconds'), 'hmac-sha256', '/webhooks/bench', \
     '[[\"content-type\",\"application/json\"],[\"user-agent\",\"bench\"],[\"x-webhook-timestamp\",\"1768478400\"]]', \
     json_object('event_id', 'evt-' || i, 'event_type', 'task_progress', 'task_id', 'task-' || ((i + 3) / 4), \
     'message', printf('%.400c', 'x')) FROM each",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO event_keys (key, event) SELECT CAST(printf('%016x', i * 2654435761) AS BLOB), i FROM each WHERE ?3 > '' AND ?4 > 0",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO tasks (seq, source, task_id, proof, proven_at, state, title, url, stop_reason, credits, first_seen_at, fetched_at, active_at) \
     SELECT i / 4, 'bench', 'task-' || (i / 4), 'listed', at, iif(i % 2000 = 0, 'waiting', iif(i % 400 = 0, 'failed', 'finished')), \
     'Task number ' || (i / 4) || ', which compares laptops', NULL, 'finish', i % 50, at, at, at FROM (SELECT i, \
     strftime('%Y-%m-%dT%H:%M:%fZ', ?3, '-' || ((?4 - i + 3) * 2592000.0 / ?4) || ' seconds') AS at FROM each WHERE i % 4 = 0)",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO fetched_tasks (task_seq, task, files, raw) SELECT i / 4, json_object('id', 'task-' || (i / 4), 'title', 'Task number ' || (i / 4), \
     'state', 'finished', 'messages', json_array(json_object('role', 'user', 'text', 'Compare three laptops.', 'files', json_array()), \
     json_object('role', 'assistant', 'text', printf('%.800c', 'y'), 'files', json_array()))), '[]', '{}' \
     FROM each WHERE i % 4 = 0 AND ?3 > '' AND ?4 > 0",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO task_events (task, event) SELECT (i + 3) / 4, i FROM each WHERE ?3 > '' AND ?4 > 0",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO deliveries (seq, id, event, destination, route, lane, state, reason, created_at, ended_at) \
     SELECT i, printf('%08x-0000-7000-9000-%012x', i, i), i, 'bench', 'default', (i + 3) / 4, iif(i % 1000 = 0, 'dead', 'delivered'), \
     iif(i % 1000 = 0, 'given up after 9 attempts, the last: 503 Service Unavailable', NULL), at, at FROM (SELECT i, \
     strftime('%Y-%m-%dT%H:%M:%fZ', ?3, '-' || ((?4 - i) * 2592000.0 / ?4) || ' seconds') AS at FROM each)",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) \
     SELECT i, 1, at, at, iif(i % 1000 = 0, 'failed', 'delivered'), iif(i % 1000 = 0, '503 Service Unavailable', '200 OK') FROM (SELECT i, \
     strftime('%Y-%m-%dT%H:%M:%fZ', ?3, '-' || ((?4 - i) * 2592000.0 / ?4) || ' seconds') AS at FROM each)",
    "WITH RECURSIVE each (i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM each WHERE i < ?2) \
     INSERT INTO delivery_bodies (delivery, body) SELECT i, '{}' FROM each WHERE i % 1000 = 0 AND ?3 > '' AND ?4 > 0",
    "UPDATE intake SET taken = ?2 WHERE ?1 > 0 AND ?3 > '' AND ?4 > 0",
];

/// The same.
const POSTGRES: [&str; 9] = [
    "INSERT INTO events (seq, id, key, source, provider, type, event_id, task_id, received_at, verification, target, headers, body) \
     SELECT i, (lpad(to_hex(i), 8, '0') || '-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, md5('key' || i)::uuid, 'bench', 'custom', \
     CASE i % 4 WHEN 0 THEN 'task_stopped' WHEN 1 THEN 'task_created' ELSE 'task_progress' END, 'evt-' || i, 'task-' || (i + 3) / 4, \
     $3::timestamptz - ($4::bigint - i) * 2592000.0 / $4 * interval '1 second', 'hmac-sha256', '/webhooks/bench', \
     '[[\"content-type\",\"application/json\"],[\"user-agent\",\"bench\"],[\"x-webhook-timestamp\",\"1768478400\"]]', \
     convert_to('{\"event_id\":\"evt-' || i || '\",\"event_type\":\"task_progress\",\"task_id\":\"task-' || (i + 3) / 4 || '\",\"message\":\"' \
     || repeat('x', 400) || '\"}', 'UTF8') FROM generate_series($1::bigint, $2::bigint) AS i",
    "INSERT INTO tasks (seq, source, task_id, proof, proven_at, state, title, stop_reason, credits, first_seen_at, fetched_at, active_at) \
     SELECT i / 4, 'bench', 'task-' || i / 4, 'listed', at, CASE WHEN i % 2000 = 0 THEN 'waiting' WHEN i % 400 = 0 THEN 'failed' ELSE 'finished' END, \
     'Task number ' || i / 4 || ', which compares laptops', 'finish', i % 50, at, at, at FROM (SELECT i, \
     $3::timestamptz - ($4::bigint - i + 3) * 2592000.0 / $4 * interval '1 second' AS at \
     FROM generate_series($1::bigint, $2::bigint) AS i WHERE i % 4 = 0) AS each",
    "INSERT INTO fetched_tasks (task_seq, task, files, raw) SELECT i / 4, json_build_object('id', 'task-' || i / 4, 'title', 'Task number ' || i / 4, \
     'state', 'finished', 'messages', json_build_array(json_build_object('role', 'user', 'text', 'Compare three laptops.', 'files', '[]'::json), \
     json_build_object('role', 'assistant', 'text', repeat('y', 800), 'files', '[]'::json)))::text, '[]', '{}' \
     FROM generate_series($1::bigint, $2::bigint) AS i WHERE i % 4 = 0 AND $3::timestamptz IS NOT NULL AND $4::bigint > 0",
    "INSERT INTO task_events (task, event) SELECT (i + 3) / 4, i FROM generate_series($1::bigint, $2::bigint) AS i \
     WHERE $3::timestamptz IS NOT NULL AND $4::bigint > 0",
    "INSERT INTO deliveries (seq, id, event, destination, route, lane, state, reason, created_at, ended_at) \
     SELECT i, (lpad(to_hex(i), 8, '0') || '-0000-7000-9000-' || lpad(to_hex(i), 12, '0'))::uuid, i, 'bench', 'default', (i + 3) / 4, \
     CASE i % 1000 WHEN 0 THEN 'dead' ELSE 'delivered' END, \
     CASE i % 1000 WHEN 0 THEN 'given up after 9 attempts, the last: 503 Service Unavailable' END, at, at FROM (SELECT i, \
     $3::timestamptz - ($4::bigint - i) * 2592000.0 / $4 * interval '1 second' AS at FROM generate_series($1::bigint, $2::bigint) AS i) AS each",
    "INSERT INTO attempts (delivery, attempt, started_at, ended_at, outcome, detail) \
     SELECT i, 1, at, at, CASE i % 1000 WHEN 0 THEN 'failed' ELSE 'delivered' END, \
     CASE i % 1000 WHEN 0 THEN '503 Service Unavailable' ELSE '200 OK' END FROM (SELECT i, \
     $3::timestamptz - ($4::bigint - i) * 2592000.0 / $4 * interval '1 second' AS at FROM generate_series($1::bigint, $2::bigint) AS i) AS each",
    "INSERT INTO delivery_bodies (delivery, body) SELECT i, '{}' FROM generate_series($1::bigint, $2::bigint) AS i \
     WHERE i % 1000 = 0 AND $3::timestamptz IS NOT NULL AND $4::bigint > 0",
    "DELETE FROM intake WHERE event BETWEEN $1::bigint AND $2::bigint AND $3::timestamptz IS NOT NULL AND $4::bigint > 0",
    // Their places were given by hand.
    "SELECT setval(pg_get_serial_sequence('events', 'seq'), $2), setval(pg_get_serial_sequence('tasks', 'seq'), $2 / 4), \
     setval(pg_get_serial_sequence('deliveries', 'seq'), $2) WHERE $1::bigint > 0 AND $3::timestamptz IS NOT NULL AND $4::bigint > 0",
];
