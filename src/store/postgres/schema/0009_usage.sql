-- What tasks used, beside what they cost in credits: the same columns of a task, as last told, and of each quarter of an hour.

ALTER TABLE tasks
    ADD COLUMN input_tokens bigint,
    ADD COLUMN output_tokens bigint,
    ADD COLUMN compute_seconds double precision,
    ADD COLUMN cost_usd double precision;

ALTER TABLE spending
    ADD COLUMN input_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN output_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN compute_seconds double precision NOT NULL DEFAULT 0,
    ADD COLUMN cost_usd double precision NOT NULL DEFAULT 0;
