-- Tasks that are asked for by themselves, since their provider has no list of them.

-- What else must be known to ask for the task (WebRun: the id of its session). A credential.
ALTER TABLE tasks ADD COLUMN locator TEXT;
-- When it was first seen to have ended, where the provider does not tell when it did.
ALTER TABLE tasks ADD COLUMN ended_at TEXT;
