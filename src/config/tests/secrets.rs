//! Secrets come from values or files, never from both, and never go out again.

use super::Setup;
use crate::provider;

#[test]
fn a_secret_may_be_in_a_file_without_the_line_end() {
    let setup = Setup::whole().file("[sources.manus]\nprovider = \"manus\"\napi_key_file = \"key\"");
    for end in ["", "\n", "\r\n"] {
        std::fs::write(setup.directory.path().join("key"), format!("sk-1{end}")).unwrap();
        let config = setup.load();
        let provider::Own::Manus(manus) = &config.sources["manus"].own else { panic!("not Manus") };
        assert_eq!(manus.api_key.as_ref().unwrap().expose(), "sk-1");
    }
}

#[test]
fn every_secret_of_every_component_may_be_in_a_file() {
    let config = Setup::whole()
        .write("key", "sk-from-file\n")
        .write("tokens", "one,two\n")
        .write("whsec", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
        .file(
            "[sources.manus]\nprovider = \"manus\"\napi_key_file = \"key\"\npath_token_file = \"tokens\"\n\
             [destinations.crm]\nkind = \"http\"\nurl = \"https://crm.example.com\"\nsecret_file = \"whsec\"",
        )
        .load();
    let provider::Own::Manus(manus) = &config.sources["manus"].own else { panic!("not Manus") };
    assert_eq!(manus.api_key.as_ref().unwrap().expose(), "sk-from-file");
    assert_eq!(config.sources["manus"].path_tokens().len(), 2);
}

#[test]
fn a_secret_is_set_once() {
    let setup = Setup::whole()
        .file("[admin]\ntoken = \"secret-1\"\n[sources.manus]\nprovider = \"manus\"\napi_key = \"secret-2\"\napi_key_file = \"key\"")
        .env("TASKHOOK__ADMIN__TOKEN_FILE", "token");
    insta::assert_snapshot!(setup.errors(), @"
    error: `sources.manus.api_key` (taskhook.toml:5:1) and `sources.manus.api_key_file` (taskhook.toml:6:1) are both set
    hint: keep one of the two; a variable that is empty counts as not set
    error: `admin.token` (taskhook.toml:2:1) and `admin.token_file` (environment variable `TASKHOOK__ADMIN__TOKEN_FILE`) are both set
    hint: keep one of the two; a variable that is empty counts as not set
    ");
}

#[test]
fn a_file_that_holds_no_secret_is_an_error() {
    let setup = Setup::whole()
        .write("empty", "\n")
        .write("binary", [0xff, 0xfe])
        .file(
            "[sources.x]\nprovider = \"manus\"\napi_key_file = \"nowhere\"\n[sources.a]\nprovider = \"manus\"\napi_key_file = \"empty\"\n\
             [sources.b]\nprovider = \"manus\"\napi_key_file = \"binary\"\n[sources.c]\nprovider = \"manus\"\napi_key_file = \".\"\n\
             [sources.d]\nprovider = \"manus\"\napi_key_file = 5",
        );
    insta::assert_snapshot!(setup.errors(), @"
    error: taskhook.toml:6:1: `sources.a.api_key_file`: the file `empty` is empty
    error: taskhook.toml:9:1: `sources.b.api_key_file`: cannot read `binary`: it is not UTF-8 text
    error: taskhook.toml:12:1: `sources.c.api_key_file`: cannot read `.`: it is a directory
    error: taskhook.toml:15:1: `sources.d.api_key_file`: must be the path of a file
    error: taskhook.toml:3:1: `sources.x.api_key_file`: cannot read `nowhere`: there is no such file
    ");
}

#[test]
fn an_empty_secret_is_an_error() {
    let setup = Setup::whole()
        .file("[admin]\ntoken = \" \"\n[sources.manus]\nprovider = \"manus\"\napi_key = \"\"\npath_token = [\"secret-1\", \"\"]");
    insta::assert_snapshot!(setup.errors(), @"
    error: taskhook.toml:5:1: `sources.manus.api_key` is empty
    hint: set it, or remove the line: an empty secret would let everybody in
    error: taskhook.toml:6:1: `sources.manus.path_token` is empty
    hint: set it, or remove the line: an empty secret would let everybody in
    error: taskhook.toml:2:1: `admin.token` is empty
    hint: set it, or remove the line: an empty secret would let everybody in
    ");
}

#[test]
fn no_secret_is_printed() {
    let config = Setup::whole()
        .file(
            "[sources.manus]\nprovider = \"manus\"\npath_token = [\"secret-1\", \"secret-2\"]\n[destinations.crm]\nkind = \"http\"\n\
             url = \"https://crm.example.com\"\nsecret = \"whsec_c2VjcmV0LTEtc2VjcmV0LTItc2VjcmV0LTM=\"",
        )
        .env("TASKHOOK__ADMIN__TOKEN", "secret-3")
        .load();
    for text in [config.to_toml(), format!("{config:?}"), format!("{config:#?}"), serde_json::to_string(&config).unwrap()] {
        assert!(text.contains("[redacted]"));
        assert!(!text.contains("secret-") && !text.contains("very-secret") && !text.contains("whsec_"), "{text}");
    }
}

#[test]
fn the_url_of_a_database_may_be_in_a_file_and_is_shown_without_its_password() {
    let setup = Setup::whole()
        .write("url", "postgres://me:secret-1@db.example.com/taskhook?application_name=hooks\n")
        .write("direct", "postgres://db.example.com:6432/taskhook?user=me&password=secret-2\n")
        .file("[store]\nurl_file = \"url\"\nlisten_url_file = \"direct\"\n[archive]\nurl = \"off\"");
    let config = setup.load();
    assert!(config.store.url.expose().starts_with("postgres://me:secret-1@db.example.com/taskhook"));
    let text = config.to_toml();
    assert!(!text.contains("secret-") && !format!("{config:?}").contains("secret-"), "{text}");
    let shown: Vec<_> = text.lines().filter(|line| line.contains("url = \"postgres")).collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    url = "postgres://me:redacted@db.example.com/taskhook?application_name=hooks"
    listen_url = "postgres://db.example.com:6432/taskhook?user=me&password=redacted"
    "#);
    // The default is no second value beside the file; another one is.
    insta::assert_snapshot!(setup.env("TASKHOOK__STORE__URL", "postgres://me:secret-3@db.example.com/taskhook").errors(), @"
    error: `store.url` (environment variable `TASKHOOK__STORE__URL`) and `store.url_file` (taskhook.toml:2:1) are both set
    hint: keep one of the two; a variable that is empty counts as not set
    ");
    assert_eq!(
        Setup::whole().file("[store]\nurl_file = \"nowhere\"").errors(),
        "error: taskhook.toml:2:1: `store.url_file`: cannot read `nowhere`: there is no such file"
    );
}

#[test]
fn a_url_of_several_servers_is_shown_without_its_password_wherever_that_stands() {
    let shown = |url: &str| {
        let config = Setup::whole().env("TASKHOOK__STORE__URL", url).file("[archive]\nurl = \"off\"").load();
        let text = config.to_toml();
        assert!(!text.contains("hush") && !format!("{config:?}").contains("hush"), "{text}");
        text.lines().find(|line| line.contains("url = \"postgres")).unwrap().to_owned()
    };
    let lines = [
        "postgres://me:hush@one:5432,two:5433/taskhook?sslmode=require",
        "postgresql://me@one:5432,two/taskhook?password=hush&application_name=hooks",
        "postgres://me:hu%40sh-hush@[::1]:5432,10.0.0.2:5433/taskhook?sslmode=disable",
        "postgres://me:a?hush/b@one,two/taskhook",
        "postgres://one:5432,two:5432/taskhook",
        "postgres://me@one,two/taskhook?p%61ssword=hush",
    ]
    .map(shown);
    insta::assert_snapshot!(lines.join("\n"), @r#"
    url = "postgres://me:redacted@one:5432,two:5433/taskhook?sslmode=require"
    url = "postgresql://me@one:5432,two/taskhook?password=redacted&application_name=hooks"
    url = "postgres://me:redacted@[::1]:5432,10.0.0.2:5433/taskhook?sslmode=disable"
    url = "postgres://me:redacted@one,two/taskhook"
    url = "postgres://one:5432,two:5432/taskhook"
    url = "postgres://me@one,two/taskhook?p%61ssword=redacted"
    "#);
}

#[test]
fn the_file_of_the_admin_token_is_left_to_who_serves() {
    let setup = Setup::whole().env("TASKHOOK__ADMIN__LISTEN", "0.0.0.0:8081").env("TASKHOOK__ADMIN__TOKEN_FILE", "nowhere");
    let admin = setup.load().admin;
    assert_eq!((admin.token, admin.token_file), (None, Some("nowhere".into())));
}
