-- Stops of tasks that events told of, each by what it is known by in the provider's answers. They stay longer than their events: what
-- was handed on once is not found again.
CREATE TABLE stops (
    source     text NOT NULL,
    task_id    text NOT NULL,
    anchor     text NOT NULL,
    -- as in `tasks`
    state      text NOT NULL,
    -- by the provider's clock
    at         timestamptz,
    -- the event's id
    event      uuid NOT NULL,
    -- no webhook told it
    recovered  boolean NOT NULL,
    claimed_at timestamptz NOT NULL,
    PRIMARY KEY (source, task_id, anchor)
);

CREATE INDEX stops_of_event ON stops (event);
CREATE INDEX stops_by_age ON stops (claimed_at);

-- The stop that the task stood at when it was fetched; NULL while it was at work.
ALTER TABLE fetched_tasks ADD COLUMN anchor text;
-- The event may tell of what another one told.
ALTER TABLE archiving ADD COLUMN may_repeat boolean NOT NULL DEFAULT false;
-- Up to which time of the provider every stop is accounted for, and when the task was last asked for by itself.
ALTER TABLE tasks ADD COLUMN looked_at timestamptz, ADD COLUMN polled_at timestamptz;

CREATE INDEX tasks_open ON tasks (source, polled_at) WHERE deleted_at IS NULL AND (state IS NULL OR state IN ('running', 'waiting'));

-- How far each source is reconciled: what stopped before `since` is left alone; when its list of tasks was read, and when it was last
-- read back to the horizon.
CREATE TABLE reconciled (
    source      text PRIMARY KEY,
    since       timestamptz NOT NULL,
    read_at     timestamptz,
    compared_at timestamptz
);
