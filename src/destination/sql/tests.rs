use super::*;

fn config(more: &Value) -> Config {
    serde_json::from_value(more.clone()).unwrap()
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let postgres = "postgres://me:s3cret@db.example.com/results";
    let refusals: Vec<String> = [
        json!({"url": "mysql://me:s3cret@db/x", "statement": "select 1"}),
        json!({"url": "sqlite://", "statement": "select 1"}),
        json!({"url": "postgres://me:s3cret@/x", "statement": "select 1"}),
        json!({"url": "postgres://me:s3cret@db.example.com", "statement": "select 1"}),
        json!({"url": format!("{postgres}?sslmode=maybe"), "statement": "select 1"}),
        json!({"url": format!("{postgres}?sslrootcert=a.pem"), "statement": "select 1"}),
        json!({"url": format!("{postgres}?s3cret=1"), "statement": "select 1"}),
        json!({"url": postgres, "statement": ""}),
        json!({"url": postgres, "statement": "select 1; drop table x"}),
        json!({"url": postgres, "statement": "insert into t values (:task_id, :titel, :delivery)", "values": {
            "task_id": "task.idd", "title": "event.title", "delivery_id": "id"}}),
        json!({"url": "sqlite:///x.db", "statement": "insert into t values (?)"}),
    ]
    .iter()
    .map(|more| config(more).check().unwrap_err())
    .collect();
    assert!(!refusals.join("").contains("me:s3cret"));
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    `url` must begin with postgres:// or sqlite://
    `url` names no file; write `sqlite:///var/lib/results.db`
    `url` names no host; write `postgres://user:password@host/database`
    `url` names no database; write `postgres://user:password@host/database`
    `url`: `sslmode` is `disable`, `prefer`, `require` or `verify-full`
    `url`: instead of `sslrootcert`, set `ca_file`
    `url`: invalid connection string: it sets something behind its `?` that is not known; in a password, `@`, `/` and `?` are `%40`, `%2F` and `%3F`
    `statement`: it is empty; write `INSERT INTO … VALUES (:delivery_id, …)`
    `statement`: there is more than one statement; a delivery is one
    `values`: `delivery_id` is always there; leave it out
    `values`: `task_id`: line 1, column 6: `task.idd` is not known; did you mean `task.id`?
    `values`: `title` is not in the statement as `:title`
    `statement`: `:titel` has no value; did you mean `:title`? A value is `values = { titel = "task.id" }`
    `statement`: `:delivery` has no value; did you mean `:delivery_id`? A value is `values = { delivery = "task.id" }`
    `statement`: `?`: write a name, such as `:task_id`, and say in `values` what it is
    "#);
}

#[test]
fn values_are_taken_when_the_delivery_is_made() {
    let config = config(
        &json!({"url": "sqlite:///x.db", "statement": "insert into t values (:delivery_id, :task_id, :files, :title, :envelope)",
        "values": {"task_id": "task.id", "files": "files | map(attribute='name') | list", "title": "event.payload.title"}}),
    );
    let sql = Sql::build(&config).unwrap();
    let mut envelope = Envelope::sample();
    envelope.event.payload = json!({"title": "a\u{0}b"});
    let content: Value = serde_json::from_str(&sql.render(&envelope).unwrap()).unwrap();
    assert_eq!(content["values"]["task_id"], "9rP8DLRXVC9fkKBKEELXkg");
    assert_eq!((&content["values"]["files"], &content["values"]["title"]), (&json!(["answer.md"]), &json!("a\u{fffd}b")));
    assert_eq!((&content["values"]["envelope"]["id"], &content["out_of_order"]), (&json!(envelope.id), &json!(false)));
}

#[test]
fn nothing_secret_is_ever_printed() {
    let config = config(&json!({"url": "postgres://me:s3cret@db.example.com/results", "statement": "select 1"}));
    let built = Sql::build(&config).unwrap();
    let printed = format!("{config:?} {built:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!printed.contains("s3cret"), "{printed}");
}
