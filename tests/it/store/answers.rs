//! What people answered to tasks: once a question, and never taken for not sent.

use taskhook::store::model::{AnswerKind, NewAnswer, Outcome, Proof, TaskNews};
use taskhook::store::view::AnswerRow;
use taskhook::task::{Fetched, Question, State, Task};

use super::*;

contract!(
    of_all_who_answer_at_once_one_is_told_to,
    what_did_not_arrive_may_be_answered_again_and_what_may_have_only_in_so_many_words,
    an_answer_that_was_never_ended_is_in_doubt,
    a_task_that_was_answered_goes_on_unless_more_is_known,
    tasks_are_listed_by_where_they_stand,
    answers_go_with_their_task_and_with_age,
    fetches_are_remembered_up_to_a_bound,
);

fn answer(task: &str, question: Option<&str>) -> NewAnswer {
    NewAnswer {
        id: Uuid::now_v7(),
        source: "manus".to_owned(),
        task_id: task.to_owned(),
        kind: if question.is_some() { AnswerKind::Reply } else { AnswerKind::Stop },
        question: question.map(str::to_owned),
        by: "me\0".to_owned(),
        content: question.map(|_| "Go on.\0".to_owned()),
        again: false,
    }
}

impl Database {
    async fn begin(&self, answer: &NewAnswer, second: i64) -> Option<AnswerRow> {
        self.store().begin_answer(answer.clone(), at(second)).await.unwrap()
    }

    async fn end_answer(&self, answer: &NewAnswer, outcome: Outcome, second: i64) {
        self.store().end_answer(answer.id, outcome, Some("why\0".to_owned()), at(second)).await.unwrap();
    }

    /// Has the task fetched by an event that it stopped, as it stands then.
    async fn stands(&self, task: &str, state: State, question: Option<&str>, second: i64) {
        self.stopped(&format!("{task}-{second}"), task).await;
        let job = self.claim_one(JobKind::Prove, "manus", at(second)).await;
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Fetch }];
        let proof = TaskNews { proof: Some("listed"), ..TaskNews::default() };
        assert!(self.store().finish(job.lease, at(second), Finish { moves, task: proof, ..Finish::default() }).await.unwrap());
        let job = self.claim_one(JobKind::Fetch, "manus", at(second)).await;
        let question = question.map(|text| Question { text: Some(text.to_owned()), ..Question::default() });
        let task = Task { id: task.to_owned(), state, question, ..Task::default() };
        let fetched = Fetched { task, raw: "{}".to_owned(), stands_at: Some("a1".to_owned()), ..Fetched::default() };
        let news = TaskNews { fetched: Some(Box::new(fetched)), ..TaskNews::default() };
        let moves = vec![Move { event: waiting(&job)[0], to: Stage::Done(Vec::new()) }];
        assert!(self.store().finish(job.lease, at(second), Finish { moves, task: news, ..Finish::default() }).await.unwrap());
    }

    async fn task_state(&self, task: &str) -> Option<String> {
        self.store().task("manus", task).await.unwrap().unwrap().row.state
    }

    /// The ids of the tasks in a list.
    async fn listed(&self, state: &str) -> Vec<String> {
        let filter = TaskFilter { source: Some("manus".to_owned()), state: Some(state.to_owned()), ..TaskFilter::default() };
        let listed = self.store().tasks(filter, Page { limit: 9, cursor: None }).await.unwrap();
        listed.data.into_iter().map(|row| row.task_id).collect()
    }
}

async fn of_all_who_answer_at_once_one_is_told_to(database: Database) {
    let answers: Vec<_> = (0..20).map(|_| answer("t1", Some("q1"))).collect();
    let told = futures_util::future::join_all(answers.iter().map(|answer| database.begin(answer, 1))).await;
    let first: Vec<_> = answers.iter().zip(&told).filter(|(_, told)| told.is_none()).map(|(answer, _)| answer.id).collect();
    assert_eq!(first.len(), 1);
    let standing = told.into_iter().flatten().next().unwrap();
    assert_eq!((standing.id, standing.state.as_str(), standing.kind.as_str()), (first[0].to_string(), "sending", "reply"));
    // Another question, another task and another source are others' affair; and a task may be stopped as often as somebody likes.
    assert_eq!(database.begin(&answer("t1", Some("q2")), 1).await, None);
    assert_eq!(database.begin(&answer("t2", Some("q1")), 1).await, None);
    assert_eq!(database.begin(&NewAnswer { source: "second".into(), ..answer("t1", Some("q1")) }, 1).await, None);
    for _ in 0..2 {
        assert_eq!(database.begin(&answer("t1", None), 1).await, None);
    }
}

async fn what_did_not_arrive_may_be_answered_again_and_what_may_have_only_in_so_many_words(database: Database) {
    for outcome in [Outcome::Refused, Outcome::Declined] {
        let one = answer("t1", Some("q1"));
        assert_eq!(database.begin(&one, 1).await, None, "{outcome:?}");
        database.end_answer(&one, outcome, 2).await;
    }
    let lost = answer("t1", Some("q1"));
    assert_eq!(database.begin(&lost, 3).await, None);
    // While it is being sent, nobody may send again, whatever they say.
    let again = |id| NewAnswer { id, again: true, ..answer("t1", Some("q1")) };
    assert_eq!(database.begin(&again(Uuid::now_v7()), 3).await.unwrap().state, "sending");
    database.end_answer(&lost, Outcome::Unknown, 4).await;
    let standing = database.begin(&answer("t1", Some("q1")), 5).await.unwrap();
    assert_eq!((standing.state.as_str(), standing.ended_at.is_some()), ("unknown", true));
    let second = again(Uuid::now_v7());
    assert_eq!(database.begin(&second, 6).await, None);
    database.end_answer(&second, Outcome::Sent, 7).await;
    assert_eq!(database.begin(&again(Uuid::now_v7()), 8).await.unwrap().state, "sent");
    // That the first one arrived after all is written down, and changes nothing else.
    database.end_answer(&lost, Outcome::Sent, 9).await;
    assert_eq!(database.begin(&answer("t1", Some("q1")), 9).await.unwrap().id, second.id.to_string());
}

async fn an_answer_that_was_never_ended_is_in_doubt(database: Database) {
    let (old, young) = (answer("t1", Some("q1")), answer("t1", Some("q2")));
    database.begin(&old, 1).await;
    database.begin(&young, 5).await;
    database.store().doubt_answers(at(5), at(9)).await.unwrap();
    let standing = database.begin(&answer("t1", Some("q1")), 9).await.unwrap();
    assert_eq!((standing.state.as_str(), standing.reason.as_deref()), ("unknown", Some("taskhook ended while it was sent")));
    assert_eq!(database.begin(&answer("t1", Some("q2")), 9).await.unwrap().state, "sending");
}

async fn a_task_that_was_answered_goes_on_unless_more_is_known(database: Database) {
    database.stands("t1", State::Waiting, Some("A or B?"), 1).await;
    for (outcome, state) in [(Outcome::Unknown, "waiting"), (Outcome::Refused, "waiting"), (Outcome::Sent, "running")] {
        let one = answer("t1", Some(outcome.as_str()));
        database.begin(&one, 2).await;
        database.end_answer(&one, outcome, 3).await;
        assert_eq!(database.task_state("t1").await.as_deref(), Some(state), "{outcome:?}");
    }
    // It was fetched between: that knows better. A stop says nothing of where it stands.
    let one = answer("t1", Some("q2"));
    database.begin(&one, 4).await;
    database.stands("t1", State::Finished, None, 5).await;
    database.end_answer(&one, Outcome::Sent, 6).await;
    let stop = answer("t1", None);
    database.begin(&stop, 7).await;
    database.end_answer(&stop, Outcome::Sent, 8).await;
    assert_eq!(database.task_state("t1").await.as_deref(), Some("finished"));
    // Of a task that nobody has heard of nothing is made up.
    let unknown = answer("t9", Some("q1"));
    database.begin(&unknown, 9).await;
    database.end_answer(&unknown, Outcome::Sent, 9).await;
    assert!(database.store().task("manus", "t9").await.unwrap().is_none());
}

async fn tasks_are_listed_by_where_they_stand(database: Database) {
    database.stands("asks", State::Waiting, Some("A or B?"), 1).await;
    database.stands("failed", State::Failed, None, 2).await;
    database.stands("done", State::Finished, None, 3).await;
    let made = Proof { task_id: "made".to_owned(), how: "created", title: None, url: None };
    database.store().record_proofs("manus", vec![made], at(4)).await.unwrap();
    assert_eq!(database.listed("waiting").await, ["asks"]);
    assert_eq!(database.listed("failed").await, ["failed"]);
    assert_eq!(database.listed("finished").await, ["done"]);
    assert_eq!(database.listed("open").await, ["made", "asks"]);
    let all = database.store().tasks(TaskFilter::default(), Page { limit: 9, cursor: None }).await.unwrap();
    let questions: Vec<_> = all.data.into_iter().filter_map(|row| row.question).collect();
    assert_eq!(questions, ["A or B?"]);
    // Text that a database may not take for text harms no list.
    database.stands("asks", State::Waiting, Some("A\0 or \\u0000?"), 5).await;
    assert_eq!(database.listed("waiting").await, ["asks"]);
    // What nothing proves to be ours is not at work for us.
    database.stopped("foreign-1", "foreign").await;
    database.claim_one(JobKind::Prove, "manus", at(6)).await;
    assert_eq!(database.listed("open").await, ["made", "asks"]);
}

async fn answers_go_with_their_task_and_with_age(database: Database) {
    database.stands("t1", State::Waiting, None, 1).await;
    for (task, second) in [("t1", 2), ("t2", 3)] {
        database.begin(&answer(task, Some("q1")), second).await;
    }
    let answers = database.store().task("manus", "t1").await.unwrap().unwrap().answers;
    assert_eq!(
        (answers.len(), answers[0].content.as_deref().map(|text| text.trim_end_matches(['\0', '\u{fffd}']))),
        (1, Some("Go on."))
    );
    let erased = database.store().erase("manus", "t1", at(9)).await.unwrap();
    assert_eq!(erased, taskhook::store::upkeep::Erased::Yes);
    assert_eq!(database.begin(&answer("t1", Some("q1")), 9).await, None, "nothing is left of it");
    database.store().forget_stops(at(3)).await.unwrap();
    assert!(database.begin(&answer("t2", Some("q1")), 9).await.is_some());
    database.store().forget_stops(at(4)).await.unwrap();
    assert_eq!(database.begin(&answer("t2", Some("q1")), 9).await, None);
}

async fn fetches_are_remembered_up_to_a_bound(database: Database) {
    for second in 1..=55 {
        database.stands("t1", State::Finished, None, second).await;
    }
    let detail = database.store().task("manus", "t1").await.unwrap().unwrap();
    let fetched: Vec<_> = detail.timeline.iter().filter(|moment| moment.kind == "fetched").collect();
    assert_eq!((fetched.len(), fetched[49].text.as_str()), (50, "finished"));
    let first = fetched[0].at.as_deref().unwrap();
    assert_eq!(first.parse::<Timestamp>().unwrap(), at(6), "the newest are remembered");
    assert!(detail.timeline.is_sorted_by_key(|moment| moment.at.clone()));
}
