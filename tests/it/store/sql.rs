//! The SQL itself: every statement of the source is one that the schema understands, and every migration keeps what was there.

use std::fs;
use std::path::Path;

use rusqlite::params;

use super::*;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/sqlite");

/// The migrations, in order.
fn migrations() -> Vec<String> {
    let mut paths: Vec<_> = fs::read_dir(Path::new(SOURCE).join("schema")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for (number, path) in (1..).zip(&paths) {
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(name.starts_with(&format!("{number:04}_")), "{name}");
    }
    paths.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The Rust files of one kind of store, each with its path.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    // What both stores have in common is above them.
    let above = Path::new(folder).parent().unwrap();
    let shared = [above.to_owned(), above.join("view")];
    let shared = shared.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    paths
        .chain(shared.filter(|path| path.is_file()))
        .filter_map(|path| fs::read_to_string(&path).ok().map(|source| (path, source)))
        .collect()
}

/// The literal that `text` begins with, and its length.
fn literal(text: &str) -> (String, usize) {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, at + 1),
            '\\' => match chars.next().map(|(_, char)| char) {
                Some('\n') => while chars.next_if(|(_, char)| char.is_whitespace()).is_some() {},
                Some('n') => value.push('\n'),
                other => value.extend(other),
            },
            other => value.push(other),
        }
    }
    panic!("a literal ends")
}

/// The string literals of Rust source, each with the place where it begins; comments are passed over.
fn literals(source: &str) -> Vec<(usize, String)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(next) = source[at..].find(['/', '\'', '"']) {
        at += next;
        let rest = &source[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("'\"'") {
            // A character in quotes.
            at += 3;
        } else if rest.starts_with('"') {
            let (text, length) = literal(rest);
            found.push((at, text));
            at += length;
        } else {
            at += 1;
        }
    }
    found
}

/// Reads what statements are made of: literals, macros that stand for one, and `concat!` of them.
struct Reader<'a> {
    /// The file that is read, and the others of its store: a macro of its own comes first.
    sources: Vec<&'a str>,
}

impl Reader<'_> {
    /// What the expression stands for that `text` begins with, and its length; `given` is what a macro was called with.
    fn expression(&self, text: &str, given: Option<&str>) -> (String, usize) {
        if text.starts_with('"') {
            return literal(text);
        }
        if let Some(name) = text.strip_prefix('$') {
            let length = name.find(|char: char| !char.is_alphanumeric() && char != '_').expect("a name ends") + 1;
            return (given.expect("the macro is called with a literal").to_owned(), length);
        }
        let name = &text[..text.find("!(").unwrap_or_else(|| panic!("no macro: {}", &text[..text.len().min(80)]))];
        let mut at = name.len() + "!(".len();
        let mut pieces = Vec::new();
        loop {
            at += text[at..].len() - text[at..].trim_start_matches([',', ' ', '\n']).len();
            if text[at..].starts_with(')') {
                break;
            }
            let (piece, length) = self.expression(&text[at..], given);
            pieces.push(piece);
            at += length;
        }
        let whole = pieces.concat();
        let whole = if name == "concat" { whole } else { self.expression(self.body(name), Some(&whole)).0 };
        (whole, at + 1)
    }

    /// What the macro `name` makes.
    fn body(&self, name: &str) -> &str {
        let made = self.find(name).unwrap_or_else(|| panic!("no macro {name}"));
        made[made.find("=> {").expect("a macro makes something") + "=> {".len()..].trim_start()
    }

    fn find(&self, name: &str) -> Option<&str> {
        let head = format!("macro_rules! {name} ");
        self.sources.iter().find_map(|source| source.find(&head).map(|at| &source[at..]))
    }

    /// The name of our macro whose call `text` ends with the beginning of.
    fn called<'a>(&self, text: &'a str) -> Option<&'a str> {
        let text = text.strip_suffix("!(")?;
        let name = &text[text.rfind(|char: char| !char.is_alphanumeric() && char != '_').map_or(0, |at| at + 1)..];
        (name == "concat" || self.find(name).is_some()).then_some(name)
    }
}

/// The SQL statements of `source`, put together where they are made of pieces; macros may come from `others`.
pub(super) fn statements(source: &str, others: &[(PathBuf, String)]) -> Vec<String> {
    const VERBS: [&str; 7] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH ", "BEGIN", "COMMIT"];
    let literals = literals(source);
    let reader = Reader { sources: [source].into_iter().chain(others.iter().map(|(_, source)| source.as_str())).collect() };
    let mut found = Vec::new();
    for (start, text) in literals.iter().filter(|(_, text)| VERBS.iter().any(|verb| text.starts_with(verb))) {
        let before = source[..*start].trim_end();
        if let Some(name) = reader.called(before) {
            let call = before.len() - name.len() - "!(".len();
            // What a macro is made of is read where it is called.
            if !source[..call].trim_end().ends_with("=> {") {
                found.push(reader.expression(&source[call..], None).0);
            }
        } else if before.ends_with("format!(") {
            let calls = source.match_indices("deliveries_where(").filter(|(at, _)| !source[..*at].ends_with("fn "));
            let condition = |at| &literals.iter().find(|(start, _)| *start >= at).expect("a literal").1;
            found.extend(calls.map(|(at, _)| text.replace("{condition}", condition(at))));
        } else {
            found.push(text.clone());
        }
    }
    found
}

#[test]
fn every_statement_is_understood() {
    let connection = Connection::open_in_memory().unwrap();
    for migration in migrations() {
        connection.execute_batch(&migration).unwrap();
    }
    let (mut all, mut prepared) = (0, 0);
    let sources = sources(SOURCE);
    for (path, source) in &sources {
        prepared += source.matches("prepare_cached(").count();
        for sql in statements(source, &sources) {
            all += 1;
            // What is several statements is done, and undone.
            let understood = match sql.strip_prefix("BEGIN; ") {
                Some(_) => connection.execute_batch(&format!("{sql}; ROLLBACK")),
                None => connection.prepare(&sql).map(drop),
            };
            if let Err(error) = understood {
                panic!("{}: {error}\n{sql}", path.display());
            }
        }
    }
    assert!(all >= prepared && prepared > 40, "of {prepared} calls only {all} statements were found: the walk misses some");
}

#[tokio::test]
async fn every_statement_is_understood_by_the_server() {
    let database = Database::postgres().await;
    let beside = database.schema().connect().await;
    let (mut all, mut sent, mut refused) = (0, 0, Vec::new());
    let sources = sources(concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/postgres"));
    for (path, source) in &sources {
        sent += [".rows(", ".row(", ".maybe(", ".run("].map(|call| source.matches(call).count()).iter().sum::<usize>();
        // How a transaction begins is not prepared, and every test does it.
        for sql in statements(source, &sources).iter().filter(|sql| !sql.starts_with("BEGIN")) {
            all += 1;
            if let Err(error) = beside.prepare(sql).await {
                let told = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
                refused.push(format!("{}: {told}\n{sql}", path.display()));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(all >= sent && sent > 100, "of {sent} calls only {all} statements were found: the walk misses some");
}

#[test]
fn pieces_are_put_together() {
    let source = r#"
        macro_rules! columns { () => { "a, \
            b" }; }
        // "SELECT not this"
        macro_rules! counted { ($found:literal) => { concat!("WITH found AS (", $found, ") SELECT ", columns!(), " FROM found") }; }
        f('"', concat!("SELECT ", columns!(), " FROM x WHERE y = 'z'"));
        f(counted!("SELECT a, b FROM y"), columns!());
        fn deliveries_where(condition: &str) { g(&format!("SELECT 1 WHERE {condition}")) }
        deliveries_where("c = \"1\"");
        h("DELETE FROM x")
    "#;
    let expected = [
        "SELECT a, b FROM x WHERE y = 'z'",
        "WITH found AS (SELECT a, b FROM y) SELECT a, b FROM found",
        "SELECT 1 WHERE c = \"1\"",
        "DELETE FROM x",
    ];
    assert_eq!(statements(source, &[]), expected);
}

/// Rows as schema 1 has them: one event that was delivered, one that waits, one dead letter, a task, a rejection, a key.
const ROWS_OF_1: &str = include_str!("rows_of_0001.sql");

/// The columns of every table.
fn columns(connection: &Connection) -> Vec<String> {
    let sql = "SELECT m.name || '.' || c.name FROM sqlite_schema AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'";
    let mut statement = connection.prepare(sql).unwrap();
    let found = statement.query_map([], |row| row.get(0)).unwrap();
    found.map(Result::unwrap).collect()
}

#[tokio::test]
async fn every_earlier_schema_is_brought_up_with_its_rows() {
    let migrations = migrations();
    for schema in 1..=migrations.len() {
        let mut database = Database::sqlite().await;
        database.store = None;
        let path = database.folder().join("earlier.db");
        let connection = Connection::open(&path).unwrap();
        // As the program of that schema left it.
        for (number, migration) in (1..).zip(&migrations[..schema]) {
            connection.execute_batch(migration).unwrap();
            if number == 1 {
                connection.execute_batch(ROWS_OF_1).unwrap();
            }
        }
        let set = "INSERT INTO store (name, value) VALUES ('schema', ?1), ('oldest_schema', '1'), ('instance_id', 'i')";
        connection.execute(set, params![schema.to_string()]).unwrap();
        connection.execute_batch("PRAGMA application_id = 0x7461736b").unwrap();
        let before = columns(&connection);
        drop(connection);

        let config = Config::new(format!("sqlite://{}", path.display()));
        let store = Store::open(&config, database.clock.clone()).await.unwrap();
        let connection = Connection::open(&path).unwrap();
        let after = columns(&connection);
        assert!(before.iter().all(|column| after.contains(column)), "a migration only adds: the program before it still runs");
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
        let kept: String = connection.query_row("SELECT value FROM store WHERE name = 'schema'", [], |row| row.get(0)).unwrap();
        assert_eq!((kept, store.instance_id()), (migrations.len().to_string(), "i"));
        database.store = Some(store);

        assert_eq!(database.store().expire(at(0)).await.unwrap(), 1);
        let backlog = database.store().backlog().await.unwrap();
        assert_eq!((backlog.jobs.len(), backlog.dead), (1, 1));
        let event = database.store().event("019bc185-0000-7000-8000-000000000001").await.unwrap().unwrap();
        assert_eq!((event.row.state.as_str(), event.deliveries.len()), ("done", 2));
        let again = event_of_1();
        assert!(matches!(database.append(again).await, Appended::Duplicate(_)), "its key is known");
        assert_eq!(database.store().task("manus", "t1").await.unwrap().unwrap().task, Some(json!({"id": "t1"})));
        assert_eq!(database.store().verification_keys("manus").await.unwrap().len(), 1);
        assert_eq!(
            database.store().rejections(RejectionFilter::default(), Page { limit: 5, cursor: None }).await.unwrap().data.len(),
            1
        );
        let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
        assert_eq!((waiting(&job), job.lease.attempt), (vec![2], 3));
    }
}

/// The first event of [`ROWS_OF_1`], sent again.
fn event_of_1() -> NewEvent {
    event("e1", Some("t1"), &json!({"event_id": "e1"}))
}
