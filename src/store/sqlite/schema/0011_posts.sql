-- Posts to the admin API that came with a key of their sender's, and what they were answered: one sent again is not done again. Of the key
-- and of what was sent only the SHA-256 stays, in hexadecimal.
CREATE TABLE posts (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    -- ours, of this try
    id           TEXT NOT NULL UNIQUE,
    key          TEXT NOT NULL UNIQUE,
    request      TEXT NOT NULL,
    -- the process that does it, from its start to its end
    holder       TEXT NOT NULL,
    -- what it is about, as far as that is known; of the task's id the SHA-256
    source       TEXT,
    task         TEXT,
    began_at     TEXT NOT NULL,
    -- it was done, and answered so; the body is NULL where it is not kept
    ended_at     TEXT,
    status       INTEGER,
    content_type TEXT,
    bytes        INTEGER NOT NULL DEFAULT 0,
    body         BLOB
) STRICT;

CREATE INDEX posts_by_age ON posts (began_at);
CREATE INDEX posts_of_task ON posts (source, task) WHERE task IS NOT NULL;
CREATE INDEX posts_kept ON posts (seq, bytes) WHERE bytes > 0;
