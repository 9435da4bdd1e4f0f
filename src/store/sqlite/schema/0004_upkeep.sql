-- Retention, erasing and restoring: what is to be removed, and what must be known of it afterwards.

-- Whether any other file has this content, and whether an event was told apart from another by its content.
CREATE INDEX files_of_content ON files (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX events_collisions ON events (collision_of) WHERE collision_of IS NOT NULL;

-- Contents of the archive that a row named which is gone. They are deleted there first; only then the row here is.
CREATE TABLE unwanted_files (
    sha256 TEXT PRIMARY KEY,
    since  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Keys of events that were erased, as in `event_keys`: a repeat is answered with the id of the event that was, and not kept.
CREATE TABLE erased_keys (
    key       BLOB PRIMARY KEY,
    event     TEXT NOT NULL,
    erased_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Tasks that a person had erased. Of the id only its SHA-256 stays, in hexadecimal.
CREATE TABLE erased_tasks (
    source    TEXT NOT NULL,
    task_id   TEXT NOT NULL,
    erased_at TEXT NOT NULL,
    events    INTEGER NOT NULL,
    PRIMARY KEY (source, task_id)
) STRICT, WITHOUT ROWID;

-- Events that were not done with in a backup that was restored: what they make may have been handed on before the restore.
CREATE TABLE restored_events (
    event  INTEGER PRIMARY KEY,
    detail TEXT NOT NULL
) STRICT;
