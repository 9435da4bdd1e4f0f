-- The first schema. Times are RFC 3339 UTC with milliseconds, JSON is text, so that a person can read the file with any SQLite shell.

-- What the store knows of itself: instance_id, schema (the newest migration), oldest_schema (the oldest program that may use it).
CREATE TABLE store (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One accepted request a row. `seq` is the order of acceptance. This row and one of `new_keys` are all that is written before the
-- sender is answered: every page that a commit touches is written to the log and to the file. What follows from it (its task, its
-- place in `open_events`, its job) is made a moment later, for many events at once: see `intake`.
CREATE TABLE events (
    seq            INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    source         TEXT NOT NULL,
    provider       TEXT NOT NULL,
    type           TEXT NOT NULL,
    provider_type  TEXT,
    event_id       TEXT NOT NULL,
    task_id        TEXT,
    received_at    TEXT NOT NULL,
    verification   TEXT NOT NULL,
    -- nothing is to be done with it
    kept           INTEGER NOT NULL DEFAULT 0,
    ping           INTEGER NOT NULL DEFAULT 0,
    collision_of   TEXT,
    repeats        INTEGER NOT NULL DEFAULT 0,
    last_repeat_at TEXT,
    released_at    TEXT,
    target         TEXT NOT NULL,
    headers        TEXT NOT NULL,
    -- the exact bytes: text where they are UTF-8, else a blob
    body           ANY NOT NULL
) STRICT;

-- How far events are taken in. One that is newer has no row in `task_events`, `open_events` and `jobs` yet, and is to be proven.
CREATE TABLE intake (
    taken INTEGER NOT NULL
) STRICT;
INSERT INTO intake (taken) VALUES (0);

-- The events of each task.
CREATE TABLE task_events (
    task  INTEGER NOT NULL REFERENCES tasks (seq),
    event INTEGER NOT NULL REFERENCES events (seq),
    PRIMARY KEY (task, event)
) STRICT, WITHOUT ROWID;

-- Events that are not done with. An event that was taken in and has no row here is done, or was only `kept`.
CREATE TABLE open_events (
    -- what work on it is about: the row of its task, or minus its own where it names none
    subject  INTEGER NOT NULL,
    event    INTEGER NOT NULL REFERENCES events (seq),
    -- proving, fetching, quarantined, dead
    state    TEXT NOT NULL,
    -- why it is quarantined or dead
    reason   TEXT,
    -- of a dead letter: why each attempt failed, as a JSON array
    reasons  TEXT,
    PRIMARY KEY (subject, event)
) STRICT, WITHOUT ROWID;

-- What a person should look at.
CREATE INDEX open_events_stuck ON open_events (state, event) WHERE state IN ('quarantined', 'dead');

-- Every event with where it stands, and what work on it is about: the row of its task, or minus its own where it names none.
CREATE VIEW standing AS
SELECT about.*, reason, reasons,
       coalesce(state, CASE WHEN kept THEN 'kept' WHEN about.seq > (SELECT taken FROM intake) THEN 'proving' ELSE 'done' END) AS state
FROM (SELECT *, coalesce((SELECT seq FROM tasks WHERE tasks.task_id = events.task_id AND tasks.source = events.source), -events.seq)
      AS subject FROM events) AS about
LEFT JOIN open_events ON open_events.event = about.seq AND open_events.subject = about.subject;

-- Acceptance once: 16 bytes of SHA-256 over (source, event id), or for a collision over its content too.
CREATE TABLE event_keys (
    key   BLOB PRIMARY KEY,
    event INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The keys of the newest events, in the order in which they came; many at once go from here to `event_keys`, in its order.
CREATE TABLE new_keys (
    event INTEGER PRIMARY KEY,
    key   BLOB NOT NULL
) STRICT;

-- What is known of a task, and the proof that it is ours.
CREATE TABLE tasks (
    seq              INTEGER PRIMARY KEY,
    source           TEXT NOT NULL,
    task_id          TEXT NOT NULL,
    -- created, listed, private, readable, visible; NULL while nothing proves it
    proof            TEXT,
    proven_at        TEXT,
    -- when the provider first said that our key cannot see it, and how often it was asked for by id
    refused_at       TEXT,
    probes           INTEGER NOT NULL DEFAULT 0,
    -- when the provider no longer knew a task that was proven
    deleted_at       TEXT,
    -- in the provider's word, where a person told us to expect it: some providers can only be asked by it
    kind             TEXT,
    state            TEXT,
    title            TEXT,
    url              TEXT,
    stop_reason      TEXT,
    credits          REAL,
    first_seen_at    TEXT NOT NULL,
    fetched_at       TEXT,
    UNIQUE (task_id, source)
) STRICT;

-- The task and its files as last fetched, in our words, and the provider's raw answers.
CREATE TABLE fetched_tasks (
    task_seq INTEGER PRIMARY KEY REFERENCES tasks (seq),
    task     TEXT NOT NULL,
    files    TEXT NOT NULL,
    raw      TEXT NOT NULL
) STRICT;

-- Work to be done, and nothing else: a finished job is no row, and a delivery has one when its turn in its lane comes, or a time
-- after which it waits no longer. `due_at` is NULL while it is leased; that lease is the record of an attempt that has started.
CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    -- prove, fetch, deliver
    kind       TEXT NOT NULL,
    -- the source or the destination that it calls
    queue      TEXT NOT NULL,
    -- the delivery; else as in `open_events`
    subject    INTEGER NOT NULL,
    -- of a prove job: its task is proven, or a person released an event of it, so nothing has to be asked
    settled    INTEGER NOT NULL DEFAULT 0,
    -- due, leased, waiting
    state      TEXT NOT NULL,
    due_at     TEXT,
    attempt    INTEGER NOT NULL DEFAULT 0,
    started_at TEXT,
    -- why each attempt failed, as a JSON array
    reasons    TEXT NOT NULL DEFAULT '[]',
    created_at TEXT NOT NULL,
    UNIQUE (kind, subject)
) STRICT;

CREATE INDEX jobs_due ON jobs (kind, queue, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_unsettled ON jobs (queue, due_at) WHERE kind = 'prove' AND settled = 0 AND due_at IS NOT NULL;

-- One event for one destination.
CREATE TABLE deliveries (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    event        INTEGER NOT NULL REFERENCES events (seq),
    destination  TEXT NOT NULL,
    replay       INTEGER NOT NULL DEFAULT 0,
    route        TEXT NOT NULL,
    -- order is kept within a lane: the subject of its event
    lane         INTEGER NOT NULL,
    -- pending, delivered, dead
    state        TEXT NOT NULL,
    reason       TEXT,
    out_of_order INTEGER NOT NULL DEFAULT 0,
    created_at   TEXT NOT NULL,
    ended_at     TEXT,
    UNIQUE (event, destination, replay)
) STRICT;

CREATE INDEX deliveries_pending ON deliveries (destination, lane, seq) WHERE state = 'pending';
CREATE INDEX deliveries_dead ON deliveries (seq) WHERE state = 'dead';

-- What is sent, fixed when the delivery is made.
CREATE TABLE delivery_bodies (
    delivery INTEGER PRIMARY KEY REFERENCES deliveries (seq),
    body     TEXT NOT NULL
) STRICT;

-- A try to hand a delivery over, as it ended. One that has started is known by the lease of its job, set before anything is sent.
CREATE TABLE attempts (
    delivery   INTEGER NOT NULL REFERENCES deliveries (seq),
    attempt    INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    ended_at   TEXT NOT NULL,
    -- delivered, failed, unknown
    outcome    TEXT NOT NULL,
    detail     TEXT,
    PRIMARY KEY (delivery, attempt)
) STRICT, WITHOUT ROWID;

-- Requests that did not verify: a small bounded ring, for diagnosis.
CREATE TABLE rejections (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at TEXT NOT NULL,
    source      TEXT NOT NULL,
    code        TEXT NOT NULL,
    -- what would have matched
    explanation TEXT,
    target      TEXT NOT NULL,
    headers     TEXT NOT NULL,
    body_bytes  INTEGER NOT NULL,
    -- at most the first 16 KiB
    body        ANY NOT NULL
) STRICT;

CREATE INDEX rejections_of ON rejections (source, code, id);

-- Verification keys as last loaded: a loaded key never expires.
CREATE TABLE verification_keys (
    source    TEXT NOT NULL,
    pem       TEXT NOT NULL,
    loaded_at TEXT NOT NULL,
    PRIMARY KEY (source, pem)
) STRICT, WITHOUT ROWID;
