-- The first schema. Times are RFC 3339 UTC with milliseconds, JSON is text, so that a person can read the file with any SQLite shell.

-- What the store knows of itself: instance_id, schema (the newest migration), oldest_schema (the oldest program that may use it).
CREATE TABLE store (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One accepted request a row. `seq` is the order of acceptance.
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
    -- proving, fetching, done, kept, quarantined, dead
    state          TEXT NOT NULL,
    -- why it is quarantined or dead
    reason         TEXT,
    -- of a dead letter: why each attempt failed, as a JSON array
    reasons        TEXT,
    ping           INTEGER NOT NULL DEFAULT 0,
    released_at    TEXT,
    collision_of   TEXT,
    repeats        INTEGER NOT NULL DEFAULT 0,
    last_repeat_at TEXT,
    target         TEXT NOT NULL,
    headers        TEXT NOT NULL,
    -- the exact bytes: text where they are UTF-8, else a blob
    body           ANY NOT NULL
) STRICT;

-- Events on their way, found by task; finished ones are not in it, so it stays small.
CREATE INDEX events_waiting ON events (source, task_id, seq) WHERE state IN ('proving', 'fetching');
-- What a person should look at.
CREATE INDEX events_stuck ON events (state, seq) WHERE state IN ('quarantined', 'dead');
CREATE INDEX events_of_task ON events (task_id, seq) WHERE task_id IS NOT NULL;

-- Acceptance once: 16 bytes of SHA-256 over (source, event id), or for a collision over its content too.
CREATE TABLE event_keys (
    key   BLOB PRIMARY KEY,
    event INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

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
    state            TEXT,
    title            TEXT,
    url              TEXT,
    stop_reason      TEXT,
    credits          REAL,
    first_seen_at    TEXT NOT NULL,
    fetched_at       TEXT,
    -- the task and its files as last fetched, in our words, and the provider's raw answers
    task             TEXT,
    files            TEXT,
    raw              TEXT,
    UNIQUE (source, task_id)
) STRICT;

-- Work to be done, and nothing else: a finished job is no row. `due_at` is NULL while it is leased or waits for its lane.
CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    -- prove, fetch, deliver
    kind       TEXT NOT NULL,
    -- the source or the destination that it calls
    queue      TEXT NOT NULL,
    -- the task, or the delivery
    subject    TEXT NOT NULL,
    -- due, leased, waiting
    state      TEXT NOT NULL,
    due_at     TEXT,
    attempt    INTEGER NOT NULL DEFAULT 0,
    -- why each attempt failed, as a JSON array
    reasons    TEXT NOT NULL DEFAULT '[]',
    created_at TEXT NOT NULL,
    UNIQUE (kind, queue, subject)
) STRICT;

CREATE INDEX jobs_due ON jobs (kind, queue, due_at) WHERE due_at IS NOT NULL;

-- One event for one destination. The body is what is sent, fixed when the row is made.
CREATE TABLE deliveries (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    event        INTEGER NOT NULL REFERENCES events (seq),
    destination  TEXT NOT NULL,
    replay       INTEGER NOT NULL DEFAULT 0,
    route        TEXT NOT NULL,
    -- order is kept within a lane: the source and task, or the event where it names none
    lane         TEXT NOT NULL,
    -- pending, delivered, dead
    state        TEXT NOT NULL,
    reason       TEXT,
    out_of_order INTEGER NOT NULL DEFAULT 0,
    body         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    ended_at     TEXT,
    UNIQUE (event, destination, replay)
) STRICT;

CREATE INDEX deliveries_pending ON deliveries (destination, lane, seq) WHERE state = 'pending';
CREATE INDEX deliveries_dead ON deliveries (seq) WHERE state = 'dead';

-- One try to hand a delivery over, recorded before anything is sent.
CREATE TABLE attempts (
    delivery   INTEGER NOT NULL REFERENCES deliveries (seq),
    attempt    INTEGER NOT NULL,
    started_at TEXT NOT NULL,
    ended_at   TEXT,
    -- started, delivered, failed, unknown
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
