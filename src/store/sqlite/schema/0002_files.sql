-- The archive: what became of each file, which events wait for theirs, and keys of our own making.

-- A file that a task, or an event without one, names. `key` stays the same when its link is signed anew.
CREATE TABLE files (
    seq           INTEGER PRIMARY KEY,
    -- as in `open_events`
    subject       INTEGER NOT NULL,
    key           TEXT NOT NULL,
    -- the newest event that it was told with: by it the provider can be asked again
    event         INTEGER NOT NULL REFERENCES events (seq),
    name          TEXT NOT NULL,
    -- the provider's link, as last told
    url           TEXT,
    content_type  TEXT,
    size_bytes    INTEGER,
    -- of the content, under which it lies in the archive
    sha256        TEXT,
    -- pending, archived, failed, too_large, skipped
    status        TEXT NOT NULL,
    -- why it is not archived, or not yet
    reason        TEXT,
    attempts      INTEGER NOT NULL DEFAULT 0,
    -- how often in a row its link was dead
    dead_links    INTEGER NOT NULL DEFAULT 0,
    -- of a pending one: when it is tried next
    due_at        TEXT,
    first_seen_at TEXT NOT NULL,
    ended_at      TEXT,
    UNIQUE (subject, key)
) STRICT;

CREATE INDEX files_pending ON files (subject) WHERE status = 'pending';

-- An event in the state archiving: since when, and how its task is known (nothing, webhook, fetched).
CREATE TABLE archiving (
    event        INTEGER PRIMARY KEY,
    subject      INTEGER NOT NULL,
    told         TEXT NOT NULL,
    since        TEXT NOT NULL,
    out_of_order INTEGER NOT NULL
) STRICT;

CREATE INDEX archiving_of ON archiving (subject, event);

-- Keys that this store made for itself, by what they sign.
CREATE TABLE own_keys (
    name    TEXT PRIMARY KEY,
    key     BLOB NOT NULL,
    made_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
