//! Which event told of which stop, and how far sources are reconciled.

use taskhook::store::model::{Acquainted, Claim, Looked, Open, Proof, Reconciled, Shown, TaskNews};
use taskhook::task::{Fetched, State, Task};

use super::care::backup;
use super::restore::end;
use super::*;

contract!(
    a_stop_is_whose_it_was_first,
    a_stop_is_remembered_longer_than_its_event_and_not_for_ever,
    what_was_listed_is_known_by_what_was_seen_of_it,
    what_may_be_at_work_is_told_and_the_longest_not_asked_for_first,
    what_stopped_is_shown_as_it_was_listed_and_nothing_else_of_it_changes,
    a_source_is_reconciled_from_its_first_time_on,
    webhooks_that_went_out_without_a_stop_are_told,
);

fn claim(anchor: &str, event: Uuid) -> Claim {
    Claim { anchor: anchor.to_owned(), state: State::Finished, at: Some(at(1)), event, recovered: false }
}

impl Database {
    /// Ends the turn of a task that `event` told of, by fetching it; `accounted` says whether all of its stops are an event's.
    async fn claims(&self, event_id: &str, task: &str, claims: Vec<Claim>, accounted: bool) -> Uuid {
        self.hands_on(event_id, task, claims, accounted, Vec::new()).await
    }

    /// The same, with these deliveries.
    async fn hands_on(
        &self,
        event_id: &str,
        task: &str,
        claims: Vec<Claim>,
        accounted: bool,
        deliveries: Vec<NewDelivery>,
    ) -> Uuid {
        let id = self.stopped(event_id, task).await;
        let job = self.claim_one(JobKind::Prove, "manus", at(2)).await;
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Fetch }];
        let proof = TaskNews { proof: Some("listed"), ..TaskNews::default() };
        assert!(self.store().finish(job.lease, at(2), Finish { moves, task: proof, ..Finish::default() }).await.unwrap());
        let job = self.claim_one(JobKind::Fetch, "manus", at(2)).await;
        let task = Task { id: task.to_owned(), state: State::Finished, updated_at: Some(at(1)), ..Task::default() };
        let fetched = Fetched { task, raw: r#"{"raw":1}"#.to_owned(), stands_at: Some("a1".to_owned()), ..Fetched::default() };
        let looked_at = accounted.then(|| at(1));
        let news = TaskNews { fetched: Some(Box::new(fetched)), looked_at, ..TaskNews::default() };
        let claims = claims.into_iter().map(|told| Claim { event: id, ..told }).collect();
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(deliveries) }];
        let finish = Finish { moves, claims, task: news, ..Finish::default() };
        assert!(self.store().finish(job.lease, at(2), finish).await.unwrap());
        id
    }
}

async fn a_stop_is_whose_it_was_first(database: Database) {
    let first = database.claims("e1", "t1", vec![claim("a1", Uuid::nil())], true).await;
    let store = database.store();
    let other = Uuid::now_v7();
    store.claim_stop("manus", "t1", claim("a1", other), at(3)).await.unwrap();
    store
        .claim_stop("manus", "t1", Claim { state: State::Waiting, at: None, recovered: true, ..claim("a2\0", other) }, at(4))
        .await
        .unwrap();
    let known = store.claims("manus", "t1").await.unwrap();
    assert_eq!(known[0], claim("a1", first));
    assert_eq!(
        (known.len(), known[1].event, known[1].state, known[1].at, known[1].recovered),
        (2, other, State::Waiting, None, true)
    );
    assert_eq!(store.claims("second", "t1").await.unwrap(), []);
    assert_eq!(store.raw("manus", "t1").await.unwrap().as_deref(), Some(r#"{"raw":1}"#));
    assert_eq!(store.raw("manus", "t2").await.unwrap(), None);
    assert_eq!(store.fetched("manus", "t1").await.unwrap().unwrap().stands_at.as_deref(), Some("a1"));
}

async fn a_stop_is_remembered_longer_than_its_event_and_not_for_ever(database: Database) {
    let event = database.claims("e1", "t1", vec![claim("a1", Uuid::nil())], true).await;
    let store = database.store();
    let removed = store.remove_events(vec![1], at(9)).await.unwrap();
    assert_eq!((removed.events, store.event(&event.to_string()).await.unwrap().is_none()), (1, true));
    assert_eq!(store.claims("manus", "t1").await.unwrap().len(), 1);
    store.forget_stops(at(2)).await.unwrap();
    assert_eq!(store.claims("manus", "t1").await.unwrap().len(), 1);
    store.forget_stops(at(3)).await.unwrap();
    assert_eq!(store.claims("manus", "t1").await.unwrap(), []);
}

async fn what_was_listed_is_known_by_what_was_seen_of_it(database: Database) {
    let store = database.store();
    database.claims("e1", "t1", Vec::new(), true).await;
    database.claims("e2", "t2", Vec::new(), false).await;
    let known = |ids: &[&str]| store.acquainted("manus", ids.iter().map(|id| (*id).to_owned()).collect());
    let seen = |looked_at| Acquainted { looked_at, ..Acquainted::default() };
    assert_eq!(known(&["t2", "t9", "t1"]).await.unwrap(), [seen(None), seen(None), seen(Some(at(1)))]);
    store.looked("manus", "t2", Looked { updated_at: Some(at(5)), ..Looked::default() }).await.unwrap();
    let earlier = Looked { updated_at: Some(at(4)), polled: Some(at(6)), ..Looked::default() };
    store.looked("manus", "t2", earlier).await.unwrap();
    store.looked("manus", "t2", Looked::default()).await.unwrap();
    assert_eq!(known(&["t2"]).await.unwrap(), [seen(Some(at(5)))], "it never goes back");
    // An event that came of it may tell what is missing: before it was taken in, and while it is worked on.
    database.stopped("e3", "t2").await;
    assert!(known(&["t2"]).await.unwrap()[0].busy);
    let job = database.claim_one(JobKind::Prove, "manus", at(7)).await;
    assert!(known(&["t2"]).await.unwrap()[0].busy && !known(&["t1"]).await.unwrap()[0].busy);
    assert!(database.finish(job.lease, at(7)).await || !waiting(&job).is_empty());
    // One that a person had erased is known by nothing but that.
    let erased = store.erase("manus", "t1", at(8)).await.unwrap();
    assert_eq!(erased, taskhook::store::upkeep::Erased::Yes);
    assert_eq!(known(&["t1"]).await.unwrap(), [Acquainted { erased: true, ..Acquainted::default() }]);
    assert_eq!(store.claims("manus", "t1").await.unwrap(), []);
}

async fn what_may_be_at_work_is_told_and_the_longest_not_asked_for_first(database: Database) {
    let store = database.store();
    let proof = |task_id: &str, how| Proof { task_id: task_id.to_owned(), how, title: Some("A title".to_owned()), url: None };
    store.record_proofs("manus", vec![proof("made", "created"), proof("old", "listed")], at(1)).await.unwrap();
    store.track("manus", tracked("told", "task"), at(2)).await.unwrap();
    database.claims("e1", "ended", Vec::new(), true).await;
    let which = Open { proven: true, since: at(-1), limit: 9 };
    let open = || async { store.open_tasks("manus", which).await.unwrap() };
    let polled = |second| Looked { polled: Some(at(second)), ..Looked::default() };
    let ids = |open: Vec<taskhook::store::model::OpenTask>| open.into_iter().map(|task| task.task_id).collect::<Vec<_>>();
    let first = open().await;
    assert_eq!(
        (first.len(), &first[0].title, first[0].first_seen_at, first[0].polled_at),
        (2, &Some("A title".to_owned()), at(1), None)
    );
    store.looked("manus", "made", polled(7)).await.unwrap();
    store.looked("manus", "told", polled(6)).await.unwrap();
    assert_eq!(ids(open().await), ["told", "made"], "what was only in a list, or has ended, is not");
    assert_eq!(store.open_tasks("manus", Open { limit: 1, ..which }).await.unwrap().len(), 1);
    assert_eq!(ids(store.open_tasks("manus", Open { since: at(1), ..which }).await.unwrap()), ["told"], "younger than that");
    // One that told of itself counts where nothing has to be proven; what it is, its newest event says, or a person did.
    let job = {
        database.stopped("e2", "heard").await;
        database.claim_one(JobKind::Prove, "manus", at(8)).await
    };
    assert!(database.finish(job.lease, at(8)).await);
    assert_eq!(open().await.len(), 2);
    let all = store.open_tasks("manus", Open { proven: false, ..which }).await.unwrap();
    let kind = |id: &str| all.iter().find(|task| task.task_id == id).unwrap().kind.clone();
    assert_eq!((kind("heard").as_deref(), kind("told").as_deref(), kind("made")), (Some(TASK_STOPPED), Some("task"), None));
    // What else is needed to ask for it stays, as does when it was first seen to have ended.
    let with = |locator: &str| Tracked { locator: Some(locator.to_owned()), ..tracked("told", "task") };
    store.track("manus", with("s1"), at(9)).await.unwrap();
    store.track("manus", with("s2"), at(9)).await.unwrap();
    for second in [10, 11] {
        store.looked("manus", "told", Looked { ended_at: Some(at(second)), ..Looked::default() }).await.unwrap();
    }
    let told = open().await.into_iter().find(|task| task.task_id == "told").unwrap();
    assert_eq!((told.locator.as_deref(), told.ended_at, told.polled_at), (Some("s1"), Some(at(10)), Some(at(6))));
    store.looked("manus", "told", Looked { state: Some(State::Finished), ..Looked::default() }).await.unwrap();
    assert_eq!(ids(open().await), ["made"], "it has ended");
}

async fn what_stopped_is_shown_as_it_was_listed_and_nothing_else_of_it_changes(database: Database) {
    let store = database.store();
    let shown = |id: &str, state, title: &str| Shown { task_id: id.to_owned(), state, title: Some(title.to_owned()), url: None };
    database.claims("e1", "fetched", Vec::new(), true).await;
    database.claims("e2", "erased", Vec::new(), true).await;
    store.erase("manus", "erased", at(3)).await.unwrap();
    database.stopped("e3", "foreign").await;
    let job = database.claim_one(JobKind::Prove, "manus", at(3)).await;
    let page =
        |title: &str| ["newest", "fetched", "erased", "foreign", "oldest"].map(|id| shown(id, State::Failed, title)).to_vec();
    store.show("manus", page("One"), at(4)).await.unwrap();
    let rows = || async {
        let all = store
            .tasks(TaskFilter { source: Some("manus".to_owned()), ..TaskFilter::default() }, Page { limit: 9, cursor: None })
            .await
            .unwrap()
            .data;
        let row = |row: taskhook::store::view::TaskRow| (row.task_id, row.state, row.title, row.proof);
        all.into_iter().map(row).collect::<Vec<_>>()
    };
    let row = |id: &str, state: Option<&str>, title: Option<&str>, proof: Option<&str>| {
        let text = |text: Option<&str>| text.map(ToOwned::to_owned);
        (id.to_owned(), text(state), text(title), text(proof))
    };
    let listed = |id: &str, state: &str, title: &str| row(id, Some(state), Some(title), Some("listed"));
    let known = [row("foreign", None, None, None), row("fetched", Some("finished"), None, Some("listed"))];
    let expected = [vec![listed("newest", "failed", "One"), listed("oldest", "failed", "One")], known.to_vec()].concat();
    assert_eq!(rows().await, expected, "the newest is first; what is known otherwise, or was erased, stays so");
    // Again: nothing is new, until a list tells otherwise.
    store.show("manus", page("Two"), at(5)).await.unwrap();
    assert_eq!(rows().await, expected);
    store.show("manus", vec![shown("oldest", State::Finished, "Three")], at(6)).await.unwrap();
    assert_eq!(rows().await[1], listed("oldest", "finished", "Three"));
    // Nothing is to be done about any of it.
    let which = Open { proven: true, since: at(-1), limit: 9 };
    assert_eq!(store.open_tasks("manus", which).await.unwrap(), []);
    assert!(database.finish(job.lease, at(7)).await);
}

async fn a_source_is_reconciled_from_its_first_time_on(database: Database) {
    let store = database.store();
    let first = store.reconciled("manus", at(5)).await.unwrap();
    assert_eq!(first, Reconciled { since: at(5), read_at: None, compared_at: None });
    store.note_read("manus", at(6), true).await.unwrap();
    store.note_read("manus", at(7), false).await.unwrap();
    let later = Reconciled { since: at(5), read_at: Some(at(7)), compared_at: Some(at(6)) };
    assert_eq!(store.reconciled("manus", at(9)).await.unwrap(), later);
    assert_eq!(store.reconciled("second", at(9)).await.unwrap().since, at(9));
}

async fn webhooks_that_went_out_without_a_stop_are_told(database: Database) {
    let store = database.store();
    let first = database.hands_on("e1", "t1", vec![claim("a1", Uuid::nil())], false, vec![delivery("crm", None)]).await;
    let second = database.hands_on("e2", "t1", Vec::new(), false, vec![delivery("crm", None)]).await;
    database.claims("told", "t1", Vec::new(), false).await;
    let unclaimed = store.unclaimed("manus", "t1", &[TASK_STOPPED]).await.unwrap();
    assert_eq!(unclaimed.iter().map(|event| event.id).collect::<Vec<_>>(), [second]);
    assert_ne!(first, second);
    assert!(store.unclaimed("manus", "t1", &["task_created"]).await.unwrap().is_empty());
    store.claim_stop("manus", "t1", claim("a2", second), at(3)).await.unwrap();
    assert!(store.unclaimed("manus", "t1", &[TASK_STOPPED]).await.unwrap().is_empty());
}

#[tokio::test]
async fn after_a_restore_what_stopped_before_is_left_alone() {
    let mut database = Database::sqlite().await;
    database.store().reconciled("manus", at(0)).await.unwrap();
    database.store().note_read("manus", at(5), true).await.unwrap();
    let file = database.folder().join("b.db");
    backup(&database, &file);
    end(&mut database).await;
    let mut since = Vec::new();
    for redeliver in [None, Some(at(100))] {
        let mut restore = taskhook::store::care::restore(&database.config(), &file, at(3600), &mut |_| {}).unwrap();
        if let Some(redeliver) = redeliver {
            restore = restore.redelivering_since(redeliver);
        }
        while restore.step(&mut |_| {}).unwrap() {}
        drop(restore);
        database.open().await;
        since.push(database.store().reconciled("manus", at(9999)).await.unwrap());
        end(&mut database).await;
    }
    let anew = |since| Reconciled { since, read_at: None, compared_at: None };
    assert_eq!(since, [anew(at(3600)), anew(at(100))]);
}
