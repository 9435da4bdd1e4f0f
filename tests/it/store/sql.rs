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

/// The string literals of Rust source, each with the place where it begins; comments are passed over.
fn literals(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut chars = source.char_indices().peekable();
    while let Some((start, char)) = chars.next() {
        match char {
            '/' if source[start..].starts_with("//") => while chars.next_if(|(_, char)| *char != '\n').is_some() {},
            // A character in quotes, such as that of a double quote.
            '\'' if source[start..].starts_with("'\"'") => drop((chars.next(), chars.next())),
            '"' => {
                let mut text = String::new();
                while let Some((_, char)) = chars.next() {
                    match char {
                        '"' => break,
                        '\\' => match chars.next().map(|(_, char)| char) {
                            Some('\n') => while chars.next_if(|(_, char)| char.is_whitespace()).is_some() {},
                            Some('n') => text.push('\n'),
                            other => text.extend(other),
                        },
                        other => text.push(other),
                    }
                }
                found.push((start, text));
            }
            _ => {}
        }
    }
    found
}

/// The first literal at or behind `from`.
fn next_literal(literals: &[(usize, String)], from: usize) -> &str {
    &literals.iter().find(|(start, _)| *start >= from).expect("a literal").1
}

/// The SQL statements of `source`, put together where they are made of pieces.
fn statements(source: &str) -> Vec<String> {
    const VERBS: [&str; 7] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH ", "BEGIN", "COMMIT"];
    let literals = literals(source);
    let mut found = Vec::new();
    for (start, text) in &literals {
        if !VERBS.iter().any(|verb| text.starts_with(verb)) {
            continue;
        }
        let before = source[..*start].trim_end();
        if before.ends_with("concat!(") {
            let mut whole = String::new();
            let mut at = *start;
            // Pieces are literals and macros that stand for one, up to the end of the call.
            loop {
                let rest = &source[at..];
                let skipped = rest.len() - rest.trim_start_matches([',', ' ', '\n']).len();
                at += skipped;
                let rest = &source[at..];
                if rest.starts_with(')') {
                    break;
                }
                if rest.starts_with('"') {
                    let index = literals.iter().position(|(start, _)| *start == at).expect("a literal");
                    whole.push_str(&literals[index].1);
                    let after = literals.get(index + 1).map_or(source.len(), |(next, _)| *next);
                    at += end_of_literal(&source[at..after]);
                } else {
                    let name = &rest[..rest.find("!()").expect("a macro")];
                    let made = source.find(&format!("macro_rules! {name} ")).unwrap_or_else(|| panic!("no macro {name}"));
                    whole.push_str(next_literal(&literals, made));
                    at += name.len() + "!()".len();
                }
            }
            found.push(whole);
        } else if before.ends_with("format!(") {
            let calls = source.match_indices("deliveries_where(").filter(|(at, _)| !source[..*at].ends_with("fn "));
            found.extend(calls.map(|(at, _)| text.replace("{condition}", next_literal(&literals, at))));
        } else {
            found.push(text.clone());
        }
    }
    found
}

/// The length of the literal that `text` begins with.
fn end_of_literal(text: &str) -> usize {
    let mut escaped = false;
    let end = text[1..].find(|char| {
        let ends = char == '"' && !escaped;
        escaped = char == '\\' && !escaped;
        ends
    });
    end.expect("a literal ends") + 2
}

#[test]
fn every_statement_is_understood() {
    let connection = Connection::open_in_memory().unwrap();
    for migration in migrations() {
        connection.execute_batch(&migration).unwrap();
    }
    let (mut all, mut prepared) = (0, 0);
    for entry in fs::read_dir(SOURCE).unwrap() {
        let path = entry.unwrap().path();
        let Ok(source) = fs::read_to_string(&path) else { continue };
        prepared += source.matches("prepare_cached(").count();
        for sql in statements(&source) {
            all += 1;
            if let Err(error) = connection.prepare(&sql) {
                panic!("{}: {error}\n{sql}", path.display());
            }
        }
    }
    assert!(all >= prepared && prepared > 40, "of {prepared} calls only {all} statements were found: the walk misses some");
}

#[test]
fn pieces_are_put_together() {
    let source = r#"
        macro_rules! columns { () => { "a, \
            b" }; }
        // "SELECT not this"
        f('"', concat!("SELECT ", columns!(), " FROM x WHERE y = 'z'"));
        fn deliveries_where(condition: &str) { g(&format!("SELECT 1 WHERE {condition}")) }
        deliveries_where("c = \"1\"");
        h("DELETE FROM x")
    "#;
    let expected = ["SELECT a, b FROM x WHERE y = 'z'", "SELECT 1 WHERE c = \"1\"", "DELETE FROM x"];
    assert_eq!(statements(source), expected);
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
        let path = database.folder.path().join("earlier.db");
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

        let config = Config { url: format!("sqlite://{}", path.display()), min_free_bytes: Size(0) };
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
        assert_eq!(database.store().rejections(Page { limit: 5, cursor: None }).await.unwrap().data.len(), 1);
        let job = database.claim_one(JobKind::Prove, "manus", at(0)).await;
        assert_eq!((waiting(&job), job.lease.attempt), (vec![2], 3));
    }
}

/// The first event of [`ROWS_OF_1`], sent again.
fn event_of_1() -> NewEvent {
    event("e1", Some("t1"), &json!({"event_id": "e1"}))
}
