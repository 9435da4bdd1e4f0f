-- What tasks used, beside what they cost in credits: the same columns of a task, as last told, and of each quarter of an hour.

ALTER TABLE tasks ADD COLUMN input_tokens INTEGER;
ALTER TABLE tasks ADD COLUMN output_tokens INTEGER;
ALTER TABLE tasks ADD COLUMN compute_seconds REAL;
ALTER TABLE tasks ADD COLUMN cost_usd REAL;

ALTER TABLE spending ADD COLUMN input_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spending ADD COLUMN output_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spending ADD COLUMN compute_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE spending ADD COLUMN cost_usd REAL NOT NULL DEFAULT 0;
