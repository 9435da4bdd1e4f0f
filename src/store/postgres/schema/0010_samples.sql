-- What was done in each minute and each hour, for charts: minutes stay for days, hours for months. A span that nobody was there for has
-- no row; one that several replicas were there for has one.
CREATE TABLE samples (
    -- in seconds: 60, 3600
    span           bigint NOT NULL,
    -- when it begins
    at             timestamptz NOT NULL,
    -- accepted in it, whoever told them
    events         bigint NOT NULL,
    -- requests of it that did not verify, as far as they were kept
    rejections     bigint NOT NULL,
    -- stops that no webhook told
    recovered      bigint NOT NULL,
    delivered      bigint NOT NULL,
    -- attempts that failed or whose outcome is unknown
    failed         bigint NOT NULL,
    -- dead letters, and jobs that are not done, at its end; how long the oldest of those that were due had been
    dead           bigint NOT NULL,
    backlog        bigint NOT NULL,
    oldest_seconds bigint NOT NULL,
    -- from an event to the end of its delivery; NULL if nothing was delivered
    median_ms      bigint,
    p95_ms         bigint,
    -- what tasks were seen to have cost
    credits        double precision NOT NULL,
    -- of a minute: the newest event that is counted, and what tasks had cost at all, so that the next one goes on from there
    newest         bigint,
    credits_ever   double precision,
    PRIMARY KEY (span, at)
);

CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE state = 'delivered';
CREATE INDEX attempts_failed ON attempts (ended_at) WHERE outcome <> 'delivered';
