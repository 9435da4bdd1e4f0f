//! Looking at a server that may get a store, or has one: `taskhook check`, and how `taskhook serve` ends where it cannot be.

use std::process::Command;

use taskhook::store::care;

use super::care::ended;
use super::*;
use crate::harness::postgres;

/// What a refusal says, and what it says to do.
async fn refusal(config: &Config) -> (String, String) {
    let error = care::look(config).await.expect_err("it must be refused");
    let hint = error.hint().expect("there is something to do").to_owned();
    (error.to_string(), hint)
}

#[tokio::test]
async fn a_server_is_looked_at_and_nothing_is_made() {
    let schema = Schema::new();
    let config = schema.config();
    let server = care::look(&config).await.unwrap();
    assert_eq!((server.schema.as_str(), server.exists), (schema.name(), false));
    assert!(
        server.place.starts_with("postgres://") && server.version.starts_with(|first: char| first.is_ascii_digit()),
        "{server:?}"
    );
    let beside = schema.connect().await;
    let there = beside.query_one("SELECT to_regnamespace($1::text) IS NOT NULL", &[&schema.name()]).await.unwrap();
    assert!(!there.get::<_, bool>(0));
    drop(Store::open(&config, Clock::manual(at(0))).await.unwrap());
    assert!(care::look(&config).await.unwrap().exists);
    let replicas = beside.query_one("SELECT count(*) FROM replicas", &[]).await.unwrap();
    assert_eq!(replicas.get::<_, i64>(0), 1, "who looks is none");
}

#[tokio::test]
async fn a_server_that_can_have_no_store_says_why() {
    let schema = Schema::new();
    let name = schema.name();
    let beside = schema.connect().await;
    // It goes with the schema.
    beside.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD '{name}'")).await.unwrap();
    let mut url: url::Url = postgres::server().parse().unwrap();
    url.set_query(Some("sslmode=disable"));
    url.set_username(name).unwrap();
    url.set_password(Some(name)).unwrap();
    let config = Config { schema: name.to_owned(), ..Config::new(url.as_str()) };
    let (problem, hint) = refusal(&config).await;
    assert!(
        problem.contains(&format!("its schema `{name}` may not be made")) && hint.contains("GRANT CREATE"),
        "{problem} {hint}"
    );
    beside.batch_execute(&format!("CREATE SCHEMA {name} AUTHORIZATION {name}")).await.unwrap();
    assert!(!care::look(&config).await.unwrap().exists);
    // As a standby is.
    beside.batch_execute(&format!("ALTER ROLE {name} SET default_transaction_read_only = on")).await.unwrap();
    let (problem, hint) = refusal(&config).await;
    assert!(problem.contains("it takes no writes") && hint.contains("the primary"), "{problem} {hint}");
    url.set_port(Some(1)).unwrap();
    let (problem, _) = refusal(&Config::new(url.as_str())).await;
    assert!(problem.contains(":1/") && !problem.contains(name), "{problem}");
    // The way that migrations take is tried as well.
    let direct = Config { listen_url: Some(Config::new(url.as_str()).url), ..schema.config() };
    let (problem, _) = refusal(&direct).await;
    assert!(problem.contains(":1/"), "{problem}");
}

/// The program, with a source that asks nobody.
fn taskhook(config: &Config, command: &str) -> Command {
    let folder = std::env::temp_dir();
    let mut taskhook = Command::new(env!("CARGO_BIN_EXE_taskhook"));
    taskhook.arg(command).current_dir(folder).env_clear();
    for (key, value) in [
        ("STORE__URL", config.url.expose()),
        ("STORE__SCHEMA", &config.schema),
        ("ARCHIVE__URL", "off"),
        ("SOURCES__TEST__PROVIDER", "manus"),
        ("SOURCES__TEST__VERIFY", "none"),
        ("SOURCES__TEST__FETCH", "off"),
    ] {
        taskhook.env(format!("TASKHOOK__{key}"), value);
    }
    taskhook
}

#[tokio::test]
async fn a_check_tells_of_the_server() {
    let schema = Schema::new();
    let config = schema.config();
    let (code, out, talk) = ended(&mut taskhook(&config, "check"));
    assert_eq!((code, talk.as_str()), (Some(0), ""), "{out}");
    let line = |out: &str| out.lines().find(|line| line.contains("store: ")).unwrap().to_owned();
    let there = format!("will get the schema `{}` at the first start", schema.name());
    assert!(line(&out).starts_with("ok       store: postgres://") && line(&out).ends_with(&there), "{out}");
    drop(Store::open(&config, Clock::manual(at(0))).await.unwrap());
    let (_, out, _) = ended(&mut taskhook(&config, "check"));
    assert!(line(&out).ends_with(&format!("has the store in its schema `{}`", schema.name())), "{out}");
    let mut url: url::Url = config.url.expose().parse().unwrap();
    url.set_port(Some(1)).unwrap();
    let away = Config::new(url.as_str());
    let (code, out, _) = ended(&mut taskhook(&away, "check"));
    assert!(
        code == Some(1) && line(&out).starts_with("problem  store: ") && out.contains("hint: is PostgreSQL running"),
        "{out}"
    );
    let (code, out, talk) = ended(&mut taskhook(&away, "serve"));
    assert_eq!((code, out.as_str()), (Some(3), ""), "{talk}");
    assert!(talk.contains("cannot use the store postgres://") && talk.contains("hint: is PostgreSQL running"), "{talk}");
}
