-- What somebody should know of, as long as it holds. One row a condition; what told of it are events, and those go their own way.
CREATE TABLE watches (
    seq         INTEGER PRIMARY KEY,
    -- the type of its events, such as `watch.dead_letter`
    type        TEXT NOT NULL,
    source      TEXT NOT NULL,
    -- what it is about, within its type and source
    key         TEXT NOT NULL,
    task_id     TEXT,
    -- the destination that is in trouble
    destination TEXT,
    since       TEXT NOT NULL,
    -- what more is known, as JSON
    detail      TEXT NOT NULL,
    raised_at   TEXT NOT NULL,
    -- it does not hold any more; then the row goes as soon as that is told
    cleared_at  TEXT,
    -- the id of the newest event that tells of it, alone or with others
    event       TEXT NOT NULL,
    -- that event is kept
    told        INTEGER NOT NULL DEFAULT 0,
    UNIQUE (type, source, key)
) STRICT;

CREATE INDEX watches_of_task ON watches (source, task_id);
CREATE INDEX watches_untold ON watches (type) WHERE told = 0;

-- When the provider's list of tasks last showed the task at work, by the provider's clock.
ALTER TABLE tasks ADD COLUMN active_at TEXT;

-- What tasks cost, by source: what was added to their credits, in the quarter of an hour in which their tasks were last changed, by the
-- provider's clock. Every time zone begins its days with a quarter.
CREATE TABLE spending (
    source  TEXT NOT NULL,
    at      TEXT NOT NULL,
    credits REAL NOT NULL,
    PRIMARY KEY (source, at)
) STRICT, WITHOUT ROWID;
