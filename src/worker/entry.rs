//! From what is known of an event to its next stage: the archiving of its files, or its deliveries.
//!
//! What must hold: what comes behind an event that waits for files goes the same way, so that order is kept; and a file that
//! several events tell of is one.

use super::Environment;
use super::dispatch::{self, Known, Place};
use crate::provider::Source;
use crate::store::model::{NewFile, Stage, StoredEvent, Told};
use crate::task::{File, keys_of};

/// Where events go that are known as well as they will be: to their files, behind an earlier one that waits for its own, or on.
#[derive(Debug)]
pub(super) struct Entry {
    behind: bool,
    /// In the order in which they are told, each once.
    files: Vec<NewFile>,
}

impl Entry {
    /// For the events of a task of which an earlier one waits for files, or none does.
    pub(super) fn new(archiving: bool) -> Self {
        Self { behind: archiving, files: Vec::new() }
    }

    /// Where the next event goes.
    pub(super) fn next(
        &mut self,
        environment: &Environment,
        source: &Source,
        event: &StoredEvent,
        task: Known<'_>,
        place: Place,
    ) -> Stage {
        let envelope = dispatch::with_files(environment, source, event, task, place, &[]);
        let files = if environment.archive.is_on() { envelope.files.as_slice() } else { &[] };
        if files.is_empty() && !self.behind {
            return dispatch::deliveries(environment, source, event, &envelope);
        }
        self.behind = true;
        for file in new_files(environment, event.seq, files) {
            if !self.files.iter().any(|known| known.key == file.key) {
                self.files.push(file);
            }
        }
        Stage::Archive { told: task.told(), out_of_order: place.out_of_order, may_repeat: place.may_repeat }
    }

    /// Where an event goes that is replayed, and whose task was fetched before: what is known of it and of its files is enough.
    pub(super) fn again(&mut self) -> Stage {
        self.behind = true;
        Stage::Archive { told: Told::Fetched, out_of_order: false, may_repeat: false }
    }

    /// The files of all of them.
    pub(super) fn files(self) -> Vec<NewFile> {
        self.files
    }
}

/// `files`, all those of one task, as they are to be archived; they are told with `event`.
pub(super) fn new_files(environment: &Environment, event: i64, files: &[File]) -> Vec<NewFile> {
    let most = environment.archive.config().max_files;
    let new = |(number, (file, key)): (usize, (&File, String))| NewFile {
        key,
        event,
        name: file.name.clone(),
        url: file.provider_url.clone(),
        content_type: file.content_type.clone(),
        size_bytes: file.size_bytes,
        refused: match &file.provider_url {
            None => Some("the provider gives no link to it".to_owned()),
            Some(_) if number >= most => Some(format!("its task has more files than `archive.max_files`, {most}")),
            Some(_) => None,
        },
    };
    files.iter().zip(keys_of(files)).enumerate().map(new).collect()
}
