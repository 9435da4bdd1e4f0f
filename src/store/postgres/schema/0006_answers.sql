-- What people answered to tasks, and that they stopped them. A question has one answer that `stands`, whoever was faster.
CREATE TABLE answers (
    id       uuid PRIMARY KEY,
    source   text NOT NULL,
    task_id  text NOT NULL,
    -- reply, confirm, stop
    kind     text NOT NULL,
    -- what it answers: the provider's id of what waits, else the stop that the task stood at; NULL where a task was stopped
    question text,
    -- who gave it, by their own word
    given_by text NOT NULL,
    -- what was said, or the input of a confirmation as JSON
    content  text,
    -- sending, sent, declined, refused, unknown
    state    text NOT NULL,
    -- whether no other answer is given: it arrived, or may have
    stands   boolean NOT NULL,
    -- what the provider said, where it did not take it
    reason   text,
    given_at timestamptz NOT NULL,
    ended_at timestamptz
);

CREATE UNIQUE INDEX answers_once ON answers (source, task_id, question) WHERE stands;
CREATE INDEX answers_of_task ON answers (source, task_id, given_at);
CREATE INDEX answers_by_age ON answers (given_at);
CREATE INDEX answers_sending ON answers (given_at) WHERE state = 'sending';

-- When the task was fetched, and where it stood then: the newest of them, each as `TIME STATE`.
ALTER TABLE fetched_tasks ADD COLUMN fetches text[] NOT NULL DEFAULT '{}';

-- What a person should look at.
CREATE INDEX tasks_stuck ON tasks (state, seq) WHERE state IN ('waiting', 'failed');
