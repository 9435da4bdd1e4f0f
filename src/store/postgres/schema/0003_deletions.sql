-- Deletions of contents from the archive that replicas share: since when one is under way, by the database's clock, and whose it is, and
-- how often one has begun or ended. Who saved a content meanwhile finds out by these, and saves it anew.
ALTER TABLE unwanted_files ADD COLUMN deleting_since timestamptz, ADD COLUMN deleting_by uuid;

CREATE SEQUENCE file_deletions;
