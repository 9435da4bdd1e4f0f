-- What a person asks for: deliveries tried again or discarded, events replayed, destinations paused.

-- The attempt that the ladder counts from: a retry by hand begins it anew.
ALTER TABLE jobs ADD COLUMN first_attempt INTEGER NOT NULL DEFAULT 1;
-- Of a delivery that joined its lane again: the one whose attempt was on its way then, which it waits for.
ALTER TABLE jobs ADD COLUMN behind INTEGER;
-- How long it waits for what is before it in its lane, in milliseconds; NULL is as long as that takes.
ALTER TABLE deliveries ADD COLUMN order_wait_ms INTEGER;

-- Events that were replayed: how often, which is the `replay` of their newest deliveries, and when last.
CREATE TABLE replays (
    event    INTEGER PRIMARY KEY REFERENCES events (seq),
    replay   INTEGER NOT NULL,
    asked_at TEXT NOT NULL
) STRICT;

-- Destinations that nothing is sent to, until a person says so.
CREATE TABLE paused (
    destination TEXT PRIMARY KEY,
    since       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
