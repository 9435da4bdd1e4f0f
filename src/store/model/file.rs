//! What the archive's jobs put into the store and get out of it.

use jiff::Timestamp;

use super::{Move, StoredEvent, TaskNews};
use crate::task::{File, FileStatus, keys_of};

/// How the task of an event is known that waits for files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// No task is fetched for this type of event.
    Nothing,
    /// It should have been fetched and could not be: only the webhook tells.
    Webhook,
    /// It was fetched.
    Fetched,
}

impl Told {
    /// The word in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Webhook => "webhook",
            Self::Fetched => "fetched",
        }
    }
}

impl std::str::FromStr for Told {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Nothing, Self::Webhook, Self::Fetched].into_iter().find(|told| told.as_str() == word).ok_or(())
    }
}

/// An event that waits for files.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The event.
    pub event: StoredEvent,
    /// How its task is known.
    pub told: Told,
    /// Since when it waits.
    pub since: Timestamp,
    /// It goes before something that came earlier.
    pub out_of_order: bool,
    /// It may tell of what another one told.
    pub may_repeat: bool,
    /// The stop that it tells of, see [`crate::task::Stop::anchor`].
    pub anchor: Option<String>,
}

/// The most events that an archive job looks at in a turn, and moves on in one transaction.
pub const TURN_EVENTS: usize = 20;

/// A file that is to be archived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// See [`keys_of`].
    pub key: String,
    /// The event that it is told with, by [`StoredEvent::seq`].
    pub event: i64,
    /// Its name: third-party text.
    pub name: String,
    /// Its link.
    pub url: Option<String>,
    /// Its type, as the provider tells it.
    pub content_type: Option<String>,
    /// Its size in bytes, as the provider tells it.
    pub size_bytes: Option<u64>,
    /// Why it is not even tried.
    pub refused: Option<String>,
}

/// A file, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// See [`keys_of`].
    pub key: String,
    /// The newest event that it was told with, by [`StoredEvent::seq`].
    pub event: i64,
    /// Its name: third-party text.
    pub name: String,
    /// Its link, as last told.
    pub url: Option<String>,
    /// Its type.
    pub content_type: Option<String>,
    /// Its size in bytes: the real one once it is archived.
    pub size_bytes: Option<u64>,
    /// Of its content, once it is archived.
    pub sha256: Option<String>,
    /// Where it stands.
    pub status: FileStatus,
    /// Why it is not archived, or not yet.
    pub reason: Option<String>,
    /// How often it was tried.
    pub attempts: u32,
    /// How often in a row its link was dead.
    pub dead_links: u32,
    /// When it is tried next, while it is pending.
    pub due_at: Option<Timestamp>,
}

impl FileRow {
    /// What is known of `files`, which are all those of their task, put into them.
    pub fn tell(files: &mut [File], rows: &[Self]) {
        let keys = keys_of(files);
        for (file, key) in files.iter_mut().zip(keys) {
            let Some(row) = rows.iter().find(|row| row.key == key) else { continue };
            file.status = row.status;
            if row.status == FileStatus::Archived {
                file.sha256.clone_from(&row.sha256);
                file.size_bytes = row.size_bytes.or(file.size_bytes);
            }
            file.content_type = file.content_type.take().or_else(|| row.content_type.clone());
        }
    }
}

/// What an archive job has done so far.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Where files stand now.
    pub files: Vec<FileRow>,
    /// What [`Store::deletions`](crate::store::Store::deletions) said before those that are archived were saved. If that has changed,
    /// what was saved may be gone: then they are to be saved anew.
    pub deletions: i64,
    /// The files as they were told anew: of those that are pending the links, and those that were not known.
    pub renewed: Vec<NewFile>,
    /// What was learnt of their task.
    pub task: TaskNews,
    /// What becomes of events that waited.
    pub moves: Vec<Move>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, url: &str) -> File {
        File { name: name.to_owned(), provider_url: Some(url.to_owned()), ..File::default() }
    }

    fn row(key: &str, status: FileStatus) -> FileRow {
        FileRow {
            key: key.to_owned(),
            event: 1,
            name: "a.md".to_owned(),
            url: None,
            content_type: Some("text/markdown".to_owned()),
            size_bytes: Some(7),
            sha256: Some("d6b6".to_owned()),
            status,
            reason: None,
            attempts: 1,
            dead_links: 0,
            due_at: None,
        }
    }

    #[test]
    fn what_is_known_of_a_file_is_told_of_it_under_its_newest_link() {
        let before = [file("a.md", "https://cdn.example/a?Signature=1"), file("b.md", "https://cdn.example/b")];
        let mut after = [file("a.md", "https://cdn.example/a?Signature=2"), file("b.md", "https://cdn.example/b")];
        after[0].size_bytes = Some(5);
        FileRow::tell(&mut after, &[row(&keys_of(&before)[0], FileStatus::Archived)]);
        let told = |file: &File| (file.status, file.size_bytes, file.sha256.clone(), file.content_type.clone());
        assert_eq!(told(&after[0]), (FileStatus::Archived, Some(7), Some("d6b6".into()), Some("text/markdown".into())));
        assert_eq!(told(&after[1]), (FileStatus::Skipped, None, None, None));
        FileRow::tell(&mut after, &[row(&keys_of(&before)[1], FileStatus::TooLarge)]);
        assert_eq!(told(&after[1]), (FileStatus::TooLarge, None, None, Some("text/markdown".into())));
    }
}
