-- What people answered to tasks, and that they stopped them. A question has one answer that `stands`, whoever was faster.
CREATE TABLE answers (
    id       TEXT PRIMARY KEY,
    source   TEXT NOT NULL,
    task_id  TEXT NOT NULL,
    -- reply, confirm, stop
    kind     TEXT NOT NULL,
    -- what it answers: the provider's id of what waits, else the stop that the task stood at; NULL where a task was stopped
    question TEXT,
    -- who gave it, by their own word
    given_by TEXT NOT NULL,
    -- what was said, or the input of a confirmation as JSON
    content  TEXT,
    -- sending, sent, declined, refused, unknown
    state    TEXT NOT NULL,
    -- whether no other answer is given: it arrived, or may have
    stands   INTEGER NOT NULL,
    -- what the provider said, where it did not take it
    reason   TEXT,
    given_at TEXT NOT NULL,
    ended_at TEXT
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX answers_once ON answers (source, task_id, question) WHERE stands;
CREATE INDEX answers_of_task ON answers (source, task_id, given_at);
CREATE INDEX answers_by_age ON answers (given_at);
CREATE INDEX answers_sending ON answers (given_at) WHERE state = 'sending';

-- When the task was fetched, and where it stood then: the newest of them, as a JSON array of `TIME STATE`.
ALTER TABLE fetched_tasks ADD COLUMN fetches TEXT NOT NULL DEFAULT '[]';

-- What a person should look at.
CREATE INDEX tasks_stuck ON tasks (state, seq) WHERE state IN ('waiting', 'failed');
