-- What was done in each minute and each hour, for charts: minutes stay for days, hours for months. A span that nobody was there for has
-- no row.
CREATE TABLE samples (
    -- in seconds: 60, 3600
    span           INTEGER NOT NULL,
    -- when it begins
    at             TEXT NOT NULL,
    -- accepted in it, whoever told them
    events         INTEGER NOT NULL,
    -- requests of it that did not verify, as far as they were kept
    rejections     INTEGER NOT NULL,
    -- stops that no webhook told
    recovered      INTEGER NOT NULL,
    delivered      INTEGER NOT NULL,
    -- attempts that failed or whose outcome is unknown
    failed         INTEGER NOT NULL,
    -- dead letters, and jobs that are not done, at its end; how long the oldest of those that were due had been
    dead           INTEGER NOT NULL,
    backlog        INTEGER NOT NULL,
    oldest_seconds INTEGER NOT NULL,
    -- from an event to the end of its delivery; NULL if nothing was delivered
    median_ms      INTEGER,
    p95_ms         INTEGER,
    -- what tasks were seen to have cost
    credits        REAL NOT NULL,
    -- of a minute: the newest event that is counted, and what tasks had cost at all, so that the next one goes on from there
    newest         INTEGER,
    credits_ever   REAL,
    PRIMARY KEY (span, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE state = 'delivered';
CREATE INDEX attempts_failed ON attempts (ended_at) WHERE outcome <> 'delivered';
