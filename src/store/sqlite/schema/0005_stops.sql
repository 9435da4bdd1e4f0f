-- Stops of tasks that events told of, each by what it is known by in the provider's answers. They stay longer than their events: what
-- was handed on once is not found again.
CREATE TABLE stops (
    source     TEXT NOT NULL,
    task_id    TEXT NOT NULL,
    anchor     TEXT NOT NULL,
    -- as in `tasks`
    state      TEXT NOT NULL,
    -- by the provider's clock
    at         TEXT,
    -- the event's id
    event      TEXT NOT NULL,
    -- no webhook told it
    recovered  INTEGER NOT NULL,
    claimed_at TEXT NOT NULL,
    PRIMARY KEY (source, task_id, anchor)
) STRICT, WITHOUT ROWID;

CREATE INDEX stops_of_event ON stops (event);
CREATE INDEX stops_by_age ON stops (claimed_at);

-- The stop that the task stood at when it was fetched; NULL while it was at work.
ALTER TABLE fetched_tasks ADD COLUMN anchor TEXT;
-- The event may tell of what another one told.
ALTER TABLE archiving ADD COLUMN may_repeat INTEGER NOT NULL DEFAULT 0;
-- Up to which time of the provider every stop is accounted for, and when the task was last asked for by itself.
ALTER TABLE tasks ADD COLUMN looked_at TEXT;
ALTER TABLE tasks ADD COLUMN polled_at TEXT;

CREATE INDEX tasks_open ON tasks (source, polled_at) WHERE deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting'));

-- How far each source is reconciled: what stopped before `since` is left alone; when its list of tasks was read, and when it was last
-- read back to the horizon.
CREATE TABLE reconciled (
    source      TEXT PRIMARY KEY,
    since       TEXT NOT NULL,
    read_at     TEXT,
    compared_at TEXT
) STRICT, WITHOUT ROWID;
