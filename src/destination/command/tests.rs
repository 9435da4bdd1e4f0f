use super::*;

fn config(more: &Value) -> Config {
    serde_json::from_value(more.clone()).unwrap()
}

#[test]
fn what_cannot_work_is_refused_at_start() {
    let refusals: Vec<String> = [
        json!({"program": "on-task"}),
        json!({"program": "/bin/sh\u{0}"}),
        json!({"program": "/bin/sh", "args": ["a\u{0}b"]}),
        json!({"program": "/bin/sh", "env": ["PATH", "A=B"]}),
        json!({"program": "/bin/sh", "env": ["TASKHOOK_SOURCE"]}),
        json!({"program": "/bin/sh", "template": "{{ task.titel }}"}),
    ]
    .iter()
    .map(|more| config(more).check().unwrap_err())
    .collect();
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    `program` must be a path, such as "/usr/local/bin/on-task" or "./on-task"
    `program` must be a path, such as "/usr/local/bin/on-task" or "./on-task"
    `args`: no argument can hold a null character
    `env`: "A=B" is no name of a variable that can be handed on
    `env`: "TASKHOOK_SOURCE" is no name of a variable that can be handed on
    `template`: line 1, column 9: `task.titel` is not known; did you mean `task.title`?
    "#);
}

#[test]
fn the_values_of_variables_are_never_printed() {
    let mut config = config(&json!({"program": "/bin/sh", "env": ["PATH", "TOKEN", "MISSING"]}));
    config.take_variables(
        &[("TOKEN", "s3cret"), ("PATH", "/bin"), ("OTHER", "x")].map(|(name, value)| (name.into(), value.into())).into(),
    );
    assert_eq!(config.variables.0.len(), 2);
    let built = Command::build(&config).unwrap();
    let printed = format!("{config:?} {built:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!printed.contains("s3cret"), "{printed}");
}

#[test]
fn the_end_of_what_was_printed_is_kept_on_one_line() {
    let tail = |text: &str| Tail { bytes: text.as_bytes().to_vec(), cut: false }.text();
    assert_eq!(tail("one\n\u{1b}[2Jtwo\n"), "one [2Jtwo");
    let long = tail(&format!("{}the end", "x".repeat(2_000)));
    assert!(long.starts_with('…') && long.ends_with("the end") && long.chars().count() == MAX_DETAIL + 1, "{long}");
}
