//! Files on their way into the archive: the verbs that keep where they stand, and who waits for them.

use taskhook::store::model::{FileRow, NewFile, Progress, Told};
use taskhook::task::FileStatus;

use super::*;

contract! {
    what_waits_for_files_has_a_job_that_ends_with_it,
    progress_is_fenced_and_keeps_all_or_nothing,
    a_file_that_backs_off_and_one_that_came_meanwhile_say_when_the_job_is_due,
    what_ended_is_not_begun_again_by_a_new_fetch_but_what_failed_is,
    given_up_on_the_events_are_dead_letters_and_the_files_have_failed,
    a_lease_on_files_is_void_at_the_next_start,
    a_key_of_our_own_is_made_once,
}

fn file(key: &str, url: &str) -> NewFile {
    NewFile {
        key: key.into(),
        event: 0,
        name: format!("{key}.md"),
        url: Some(url.into()),
        content_type: None,
        size_bytes: Some(7),
        refused: None,
    }
}

/// The subject of the first task that a store hears of.
const T1: i64 = 1;

impl Database {
    /// Takes an event of the task `t1` to where it waits for `files`; its id and place.
    async fn waits(&self, event_id: &str, files: Vec<NewFile>, now: Timestamp) -> (Uuid, i64) {
        let id = self.stopped(event_id, "t1").await;
        let job = self.claim_one(JobKind::Prove, "manus", now).await;
        let seq = waiting(&job)[0];
        let files = files.into_iter().map(|file| NewFile { event: seq, ..file }).collect();
        let moves = vec![Move { event: seq, to: Stage::Archive { told: Told::Fetched, out_of_order: false, may_repeat: false } }];
        assert!(self.store().finish(job.lease, now, Finish { moves, files, ..Finish::default() }).await.unwrap());
        (id, seq)
    }

    async fn files(&self) -> Vec<FileRow> {
        self.store().files(T1).await.unwrap()
    }

    async fn progress(&self, lease: Lease, progress: Progress, now: Timestamp) -> bool {
        self.store().progress(lease, now, progress).await.unwrap()
    }

    /// Ends the turn of a job that saw the event `seen`, to be due again at `again_at`.
    async fn end(&self, lease: Lease, seen: Option<i64>, again_at: Option<Timestamp>, now: Timestamp) -> bool {
        self.store().finish(lease, now, Finish { seen, again_at, ..Finish::default() }).await.unwrap()
    }
}

fn archived(row: &FileRow) -> FileRow {
    FileRow { status: FileStatus::Archived, sha256: Some("d6b6".into()), due_at: None, attempts: 1, ..row.clone() }
}

fn done(event: i64) -> Move {
    Move { event, to: Stage::Done(vec![delivery("crm", None)]) }
}

async fn what_waits_for_files_has_a_job_that_ends_with_it(database: Database) {
    let (id, seq) = database.waits("e1", vec![file("a", "https://x/1")], at(1)).await;
    assert_eq!(database.state(id).await, "archiving");
    assert_eq!(database.backlog().await, [("archive".to_owned(), "manus".to_owned(), 1)]);
    assert_eq!(database.store().backlog().await.unwrap().events, 1);
    let known = database.store().waiting_for_files(T1).await.unwrap();
    assert_eq!((known.len(), known[0].event.id, known[0].told, known[0].since), (1, id, Told::Fetched, at(1)));
    let job = database.claim_one(JobKind::Archive, "manus", at(1)).await;
    assert!(matches!(&job.work, Work::Files { task_id, .. } if task_id.as_deref() == Some("t1")), "{job:?}");
    let rows = database.files().await;
    assert_eq!((rows[0].status, rows[0].url.as_deref(), rows[0].due_at), (FileStatus::Pending, Some("https://x/1"), Some(at(1))));
    let progress = Progress { files: vec![archived(&rows[0])], moves: vec![done(seq)], ..Progress::default() };
    assert!(database.progress(job.lease, progress, at(2)).await);
    assert_eq!(database.state(id).await, "done");
    assert!(database.end(job.lease, None, None, at(2)).await);
    assert_eq!(database.backlog().await, [("deliver".to_owned(), "crm".to_owned(), 1)]);
    assert_eq!(database.files().await[0].status, FileStatus::Archived);
}

async fn progress_is_fenced_and_keeps_all_or_nothing(database: Database) {
    let (id, seq) = database.waits("e1", vec![file("a", "https://x/1")], at(1)).await;
    let job = database.claim_one(JobKind::Archive, "manus", at(1)).await;
    let rows = database.files().await;
    let before = database.dump().await;
    let stale = Lease { attempt: job.lease.attempt + 1, ..job.lease };
    let progress = Progress { files: vec![archived(&rows[0])], moves: vec![done(seq)], ..Progress::default() };
    assert!(!database.progress(stale, progress.clone(), at(2)).await);
    assert_eq!(database.dump().await, before);
    database.store().hand_back(vec![job.lease], at(2)).await.unwrap();
    assert!(!database.progress(job.lease, progress.clone(), at(2)).await);
    assert!(!database.end(job.lease, None, None, at(2)).await);
    assert_eq!(database.state(id).await, "archiving");
    let again = database.claim_one(JobKind::Archive, "manus", at(2)).await;
    assert!(database.progress(again.lease, progress, at(2)).await);
}

async fn a_file_that_backs_off_and_one_that_came_meanwhile_say_when_the_job_is_due(database: Database) {
    let (_, seq) = database.waits("e1", vec![file("a", "https://x/1")], at(1)).await;
    let job = database.claim_one(JobKind::Archive, "manus", at(1)).await;
    let later = FileRow { due_at: Some(at(60)), attempts: 1, reason: Some("503".into()), ..database.files().await[0].clone() };
    assert!(database.progress(job.lease, Progress { files: vec![later], ..Progress::default() }, at(2)).await);
    assert!(database.end(job.lease, Some(seq), Some(at(1800)), at(2)).await);
    assert!(database.claim(JobKind::Archive, "manus", at(59)).await.is_empty());
    let job = database.claim_one(JobKind::Archive, "manus", at(60)).await;
    // While it runs, another event comes to wait, with a file of its own.
    let (_, newer) = database.waits("e2", vec![file("a", "https://x/2"), file("b", "https://x/b")], at(61)).await;
    assert!(database.end(job.lease, Some(seq), Some(at(1800)), at(62)).await);
    let job = database.claim_one(JobKind::Archive, "manus", at(62)).await;
    let rows = database.files().await;
    let seen: Vec<_> = rows.iter().map(|row| (row.key.as_str(), row.url.as_deref(), row.attempts, row.event)).collect();
    assert_eq!(seen, [("a", Some("https://x/2"), 1, newer), ("b", Some("https://x/b"), 0, newer)]);
    // Nothing is left but events that wait for something else.
    let files = rows.iter().map(archived).collect();
    assert!(database.progress(job.lease, Progress { files, ..Progress::default() }, at(63)).await);
    assert!(database.end(job.lease, Some(newer), Some(at(100)), at(63)).await);
    assert!(database.claim(JobKind::Archive, "manus", at(99)).await.is_empty());
    assert_eq!(database.claim(JobKind::Archive, "manus", at(100)).await.len(), 1);
}

async fn what_ended_is_not_begun_again_by_a_new_fetch_but_what_failed_is(database: Database) {
    let files = || vec![file("a", "https://x/1"), file("b", "https://x/2"), file("c", "https://x/3")];
    let (_, seq) = database.waits("e1", files(), at(1)).await;
    let job = database.claim_one(JobKind::Archive, "manus", at(1)).await;
    let rows = database.files().await;
    let ended = |row: &FileRow, status| FileRow { status, attempts: 4, reason: Some("so".into()), due_at: None, ..row.clone() };
    let files_now = vec![archived(&rows[0]), ended(&rows[1], FileStatus::Failed), ended(&rows[2], FileStatus::TooLarge)];
    assert!(
        database.progress(job.lease, Progress { files: files_now, moves: vec![done(seq)], ..Progress::default() }, at(2)).await
    );
    // Told anew in the midst of a turn, it stays as it is; what is new is tried.
    let renewed = files().into_iter().chain([file("d", "https://x/4")]).collect();
    assert!(database.progress(job.lease, Progress { renewed, ..Progress::default() }, at(2)).await);
    let statuses = async || database.files().await.iter().map(|row| (row.status, row.attempts)).collect::<Vec<_>>();
    let (kept, large) = ((FileStatus::Archived, 1), (FileStatus::TooLarge, 4));
    assert_eq!(statuses().await, [kept, (FileStatus::Failed, 4), large, (FileStatus::Pending, 0)]);
    assert!(database.end(job.lease, None, None, at(2)).await);
    // Another event, and a fetch for it.
    database.waits("e2", files(), at(3)).await;
    assert_eq!(statuses().await, [kept, (FileStatus::Pending, 0), large, (FileStatus::Pending, 0)]);
    assert_eq!(database.claim(JobKind::Archive, "manus", at(3)).await.len(), 1);
}

async fn given_up_on_the_events_are_dead_letters_and_the_files_have_failed(database: Database) {
    let (id, _) = database.waits("e1", vec![file("a", "https://x/1")], at(1)).await;
    let job = database.claim_one(JobKind::Archive, "manus", at(1)).await;
    assert!(database.retry(job.lease, at(2), at(3), "once").await);
    let job = database.claim_one(JobKind::Archive, "manus", at(3)).await;
    assert!(database.bury(job.lease, at(4), "twice").await);
    let event = database.event(id).await;
    assert_eq!((event.row.state.as_str(), event.row.reason.as_deref()), ("dead", Some("twice")));
    assert_eq!(event.reasons, ["once", "twice"]);
    assert_eq!(database.files().await[0].status, FileStatus::Failed);
    assert_eq!((database.backlog().await, database.store().backlog().await.unwrap().events), (vec![], 0));
}

async fn a_lease_on_files_is_void_at_the_next_start(mut database: Database) {
    let (id, _) = database.waits("e1", vec![file("a", "https://x/1")], at(1)).await;
    let job = database.claim_one(JobKind::Archive, "manus", at(1)).await;
    database.reopen().await;
    assert_eq!(database.store().expire(at(2)).await.unwrap(), 1);
    let again = database.claim_one(JobKind::Archive, "manus", at(2)).await;
    assert!(!database.progress(job.lease, Progress::default(), at(2)).await);
    assert!(database.progress(again.lease, Progress::default(), at(2)).await);
    assert_eq!(database.state(id).await, "archiving");
}

async fn a_key_of_our_own_is_made_once(mut database: Database) {
    let store = database.store();
    assert_eq!(store.own_key("files", vec![1; 32], at(1)).await.unwrap(), [1; 32]);
    assert_eq!(store.own_key("files", vec![2; 32], at(2)).await.unwrap(), [1; 32]);
    assert_eq!(store.own_key("other", vec![3; 32], at(2)).await.unwrap(), [3; 32]);
    database.reopen().await;
    assert_eq!(database.store().own_key("files", vec![4; 32], at(3)).await.unwrap(), [1; 32]);
}
