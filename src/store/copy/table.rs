//! The tables of a store, as PostgreSQL has them, and what SQLite has for each.

use super::cell::Kind::{self, Bytes, Flag, Id, Number, Real, Text, Texts, Time};

/// A table.
#[derive(Debug)]
pub(in crate::store) struct Table {
    pub(in crate::store) name: &'static str,
    /// The first is a number that the database gives, and gives once.
    pub(in crate::store) numbered: bool,
    pub(in crate::store) columns: &'static [(&'static str, Kind)],
    /// What SQLite selects them from.
    of_sqlite: &'static str,
    /// What PostgreSQL selects them from.
    of_postgres: &'static str,
}

impl Table {
    const fn new(name: &'static str, columns: &'static [(&'static str, Kind)]) -> Self {
        Self { name, numbered: false, columns, of_sqlite: name, of_postgres: name }
    }

    const fn numbered(mut self) -> Self {
        self.numbered = true;
        self
    }

    /// It is not one table, or not all of one.
    const fn from(mut self, of_sqlite: &'static str) -> Self {
        self.of_sqlite = of_sqlite;
        self
    }

    const fn to(mut self, of_postgres: &'static str) -> Self {
        self.of_postgres = of_postgres;
        self
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// All rows, in SQLite.
    pub(in crate::store) fn select_of_sqlite(&self) -> String {
        format!("SELECT {} FROM {}", self.names(), self.of_sqlite)
    }

    /// How many they are.
    pub(in crate::store) fn count_of_sqlite(&self) -> String {
        format!("SELECT count(*) FROM {}", self.of_sqlite)
    }

    /// All rows, in PostgreSQL.
    pub(in crate::store) fn select_of_postgres(&self) -> String {
        format!("SELECT {} FROM {}", self.names(), self.of_postgres)
    }

    /// What takes rows in, in PostgreSQL.
    pub(in crate::store) fn copy_in(&self) -> String {
        format!("COPY {} ({}) FROM STDIN BINARY", self.name, self.names())
    }
}

/// All tables. What each store says of itself alone stays where it is: its schema, when it was opened, checked and backed up, and
/// whether its file has traces of what was erased.
pub(in crate::store) const TABLES: &[Table] = &[
    Table::new("store", &[("name", Text), ("value", Text)])
        .from(
            "(SELECT name, value FROM store \
             WHERE name NOT IN ('schema', 'oldest_schema', 'opened_at', 'checked_at', 'backup_at', 'traces')) AS facts",
        )
        .to("(SELECT name, value FROM store WHERE name NOT IN ('schema', 'oldest_schema')) AS facts"),
    Table::new(
        "events",
        &[
            ("seq", Number),
            ("id", Id),
            ("key", Id),
            ("source", Text),
            ("provider", Text),
            ("type", Text),
            ("provider_type", Text),
            ("event_id", Text),
            ("task_id", Text),
            ("received_at", Time),
            ("verification", Text),
            ("kept", Flag),
            ("ping", Flag),
            ("collision_of", Id),
            ("repeats", Number),
            ("last_repeat_at", Time),
            ("released_at", Time),
            ("target", Text),
            ("headers", Text),
            ("body", Bytes),
        ],
    )
    .numbered()
    .from("(SELECT events.*, (SELECT key FROM temp.keys WHERE keys.event = events.seq) AS key FROM events)"),
    Table::new("intake", &[("event", Number)]).from("(SELECT seq AS event FROM events WHERE seq > (SELECT taken FROM intake))"),
    Table::new(
        "tasks",
        &[
            ("seq", Number),
            ("source", Text),
            ("task_id", Text),
            ("proof", Text),
            ("proven_at", Time),
            ("refused_at", Time),
            ("probes", Number),
            ("deleted_at", Time),
            ("kind", Text),
            ("state", Text),
            ("title", Text),
            ("url", Text),
            ("stop_reason", Text),
            ("credits", Real),
            ("input_tokens", Number),
            ("output_tokens", Number),
            ("compute_seconds", Real),
            ("cost_usd", Real),
            ("first_seen_at", Time),
            ("fetched_at", Time),
            ("looked_at", Time),
            ("polled_at", Time),
            ("active_at", Time),
            ("locator", Text),
            ("ended_at", Time),
        ],
    )
    .numbered(),
    Table::new(
        "stops",
        &[
            ("source", Text),
            ("task_id", Text),
            ("anchor", Text),
            ("state", Text),
            ("at", Time),
            ("event", Id),
            ("recovered", Flag),
            ("claimed_at", Time),
        ],
    ),
    Table::new(
        "answers",
        &[
            ("id", Id),
            ("source", Text),
            ("task_id", Text),
            ("kind", Text),
            ("question", Text),
            ("given_by", Text),
            ("content", Text),
            ("state", Text),
            ("stands", Flag),
            ("reason", Text),
            ("given_at", Time),
            ("ended_at", Time),
        ],
    ),
    Table::new(
        "watches",
        &[
            ("seq", Number),
            ("type", Text),
            ("source", Text),
            ("key", Text),
            ("task_id", Text),
            ("destination", Text),
            ("since", Time),
            ("detail", Text),
            ("raised_at", Time),
            ("cleared_at", Time),
            ("event", Id),
            ("told", Flag),
        ],
    )
    .numbered(),
    Table::new(
        "spending",
        &[
            ("source", Text),
            ("at", Time),
            ("credits", Real),
            ("input_tokens", Number),
            ("output_tokens", Number),
            ("compute_seconds", Real),
            ("cost_usd", Real),
        ],
    ),
    Table::new(
        "samples",
        &[
            ("span", Number),
            ("at", Time),
            ("events", Number),
            ("rejections", Number),
            ("recovered", Number),
            ("delivered", Number),
            ("failed", Number),
            ("dead", Number),
            ("backlog", Number),
            ("oldest_seconds", Number),
            ("median_ms", Number),
            ("p95_ms", Number),
            ("credits", Real),
            ("newest", Number),
            ("credits_ever", Real),
        ],
    ),
    Table::new("reconciled", &[("source", Text), ("since", Time), ("read_at", Time), ("compared_at", Time)]),
    Table::new("task_events", &[("task", Number), ("event", Number)]),
    Table::new("open_events", &[("subject", Number), ("event", Number), ("state", Text), ("reason", Text), ("reasons", Texts)]),
    Table::new(
        "fetched_tasks",
        &[("task_seq", Number), ("task", Text), ("files", Text), ("raw", Text), ("anchor", Text), ("fetches", Texts)],
    ),
    Table::new(
        "jobs",
        &[
            ("id", Number),
            ("kind", Text),
            ("queue", Text),
            ("subject", Number),
            ("settled", Flag),
            ("state", Text),
            ("due_at", Time),
            ("attempt", Number),
            ("first_attempt", Number),
            ("started_at", Time),
            ("behind", Number),
            ("reasons", Texts),
            ("created_at", Time),
        ],
    )
    .numbered(),
    Table::new(
        "deliveries",
        &[
            ("seq", Number),
            ("id", Id),
            ("event", Number),
            ("destination", Text),
            ("replay", Number),
            ("route", Text),
            ("lane", Number),
            ("state", Text),
            ("reason", Text),
            ("out_of_order", Flag),
            ("created_at", Time),
            ("ended_at", Time),
            ("order_wait_ms", Number),
        ],
    )
    .numbered(),
    Table::new("delivery_bodies", &[("delivery", Number), ("body", Text)]),
    Table::new(
        "attempts",
        &[
            ("delivery", Number),
            ("attempt", Number),
            ("started_at", Time),
            ("ended_at", Time),
            ("outcome", Text),
            ("detail", Text),
        ],
    ),
    Table::new(
        "files",
        &[
            ("seq", Number),
            ("subject", Number),
            ("key", Text),
            ("event", Number),
            ("name", Text),
            ("url", Text),
            ("content_type", Text),
            ("size_bytes", Number),
            ("sha256", Text),
            ("status", Text),
            ("reason", Text),
            ("attempts", Number),
            ("dead_links", Number),
            ("due_at", Time),
            ("first_seen_at", Time),
            ("ended_at", Time),
        ],
    )
    .numbered(),
    Table::new(
        "archiving",
        &[("event", Number), ("subject", Number), ("told", Text), ("since", Time), ("out_of_order", Flag), ("may_repeat", Flag)],
    ),
    Table::new("unwanted_files", &[("sha256", Text), ("since", Time)]),
    Table::new(
        "posts",
        &[
            ("seq", Number),
            ("id", Id),
            ("key", Text),
            ("request", Text),
            ("holder", Id),
            ("source", Text),
            ("task", Text),
            ("began_at", Time),
            ("ended_at", Time),
            ("status", Number),
            ("content_type", Text),
            ("bytes", Number),
            ("body", Bytes),
        ],
    )
    .numbered(),
    Table::new("replays", &[("event", Number), ("replay", Number), ("asked_at", Time)]),
    Table::new("paused", &[("destination", Text), ("since", Time)]),
    Table::new("erased_keys", &[("key", Id), ("event", Id), ("erased_at", Time)]),
    Table::new("erased_tasks", &[("source", Text), ("task_id", Text), ("erased_at", Time), ("events", Number)]),
    Table::new("restored_events", &[("event", Number), ("detail", Text)]),
    Table::new(
        "rejections",
        &[
            ("id", Number),
            ("received_at", Time),
            ("source", Text),
            ("code", Text),
            ("explanation", Text),
            ("target", Text),
            ("headers", Text),
            ("body_bytes", Number),
            ("body", Bytes),
        ],
    )
    .numbered(),
    Table::new("verification_keys", &[("source", Text), ("pem", Text), ("loaded_at", Time)]),
    Table::new("own_keys", &[("name", Text), ("key", Bytes), ("made_at", Time)]),
];
