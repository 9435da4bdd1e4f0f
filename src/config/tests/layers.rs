//! Each layer goes over the one before.

use std::time::Duration;

use super::Setup;
use crate::provider;
use crate::setting::{Secret, Size};

const FILE: &str = "[store]\nurl = \"sqlite://file.db\"";

#[test]
fn the_defaults_are_the_embedded_file() {
    let config = Setup::whole().load();
    assert_eq!(config.server.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.server.max_body_bytes, Size(2 << 20));
    assert_eq!(config.server.request_timeout, Duration::from_secs(4));
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(config.store.url.expose(), "sqlite://data/taskhook.db");
    assert!(config.destinations.contains_key("log") && config.routes.is_empty());
}

#[test]
fn a_file_goes_over_the_defaults() {
    assert_eq!(Setup::whole().file(FILE).load().store.url.expose(), "sqlite://file.db");
}

#[test]
fn the_file_may_be_named_by_a_variable_and_the_flag_wins() {
    let setup = Setup::whole().env("TASKHOOK_CONFIG", "other.toml").write("other.toml", "[store]\nurl = \"sqlite://other.db\"");
    assert_eq!(setup.load().store.url.expose(), "sqlite://other.db");
    assert_eq!(setup.file(FILE).load().store.url.expose(), "sqlite://file.db");
}

#[test]
fn dot_env_goes_over_the_file_the_environment_over_it_and_a_flag_over_all() {
    let setup = Setup::whole().file(FILE).dot_env("# a comment\nTASKHOOK__STORE__URL=sqlite://dot-env.db\nOTHER_PROGRAM=1\n");
    assert_eq!(setup.load().store.url.expose(), "sqlite://dot-env.db");
    let setup = setup.env("TASKHOOK__STORE__URL", "sqlite://env.db");
    assert_eq!(setup.load().store.url.expose(), "sqlite://env.db");
    let setup = setup.flag("--store", "store.url", "sqlite://flag.db");
    assert_eq!(setup.load().store.url.expose(), "sqlite://flag.db");
}

#[test]
fn dot_env_is_never_exported() {
    Setup::whole().dot_env("TASKHOOK__LOG__LEVEL=debug\n").load();
    #[expect(clippy::disallowed_methods, reason = "that it is not in the environment is the point")]
    let exported = std::env::var("TASKHOOK__LOG__LEVEL");
    assert!(exported.is_err());
}

#[test]
fn an_empty_variable_is_unset_and_lets_the_layer_below_through() {
    let setup = Setup::whole().dot_env("TASKHOOK__STORE__URL=sqlite://dot-env.db\n").env("TASKHOOK__STORE__URL", "");
    assert_eq!(setup.load().store.url.expose(), "sqlite://dot-env.db");
    let setup = Setup::whole().env("MANUS_API_KEY", "").dot_env("MANUS_API_KEY=sk-from-dot-env\n");
    assert_eq!(manus(&setup).api_key.unwrap().expose(), "sk-from-dot-env");
}

#[test]
fn the_last_of_two_lines_in_dot_env_counts_and_quotes_keep_a_dollar() {
    let setup = Setup::whole().env("MANUS_API_KEY", "").dot_env("MANUS_API_KEY=one\nexport MANUS_API_KEY='sk-$HOME'\n");
    assert_eq!(manus(&setup).api_key.unwrap().expose(), "sk-$HOME");
}

#[test]
fn variables_are_read_by_the_type_of_the_key() {
    let setup = Setup::whole()
        .env("TASKHOOK__SERVER__MAX_CONNECTIONS", "00123")
        .env("TASKHOOK__SERVER__MAX_INFLIGHT_BYTES", "8388608")
        .env("TASKHOOK__SERVER__SHUTDOWN_DELAY", "2m")
        .env("TASKHOOK__SERVER__PUBLIC_URL", "https://a.example.com, https://b.example.com")
        .env("TASKHOOK__ADMIN__TOKEN", "00123")
        .env("TASKHOOK__SOURCES__MANUS__PROVIDER", "manus")
        .env("TASKHOOK__SOURCES__MANUS__API_KEY", "true")
        .env("TASKHOOK__SOURCES__MANUS__PATH_TOKEN", "1e3,00456")
        .env("TASKHOOK__SOURCES__MANUS__API_VERSION", "v1");
    let config = setup.load();
    assert_eq!(config.server.max_connections, 123);
    assert_eq!(config.server.max_inflight_bytes, Size(8 << 20));
    assert_eq!(config.server.shutdown_delay, Duration::from_mins(2));
    assert_eq!(*config.server.public_url, ["https://a.example.com", "https://b.example.com"]);
    assert_eq!(config.admin.token.unwrap().expose(), "00123");
    let manus = manus(&setup);
    assert_eq!(manus.api_key.unwrap().expose(), "true");
    assert_eq!(config.sources["manus"].path_tokens().iter().map(Secret::expose).collect::<Vec<_>>(), ["1e3", "00456"]);
    assert_eq!(manus.api_version, provider::manus::ApiVersion::V1);
}

#[test]
fn port_stands_in_for_a_listener_that_nothing_else_sets() {
    let listen = |setup: Setup| setup.load().server.listen.to_string();
    assert_eq!(listen(Setup::whole().env("PORT", "9000")), "0.0.0.0:9000");
    assert_eq!(listen(Setup::whole().dot_env("PORT=9000\n")), "0.0.0.0:9000");
    assert_eq!(listen(Setup::whole().env("PORT", "9000").file("[server]\nlisten = \"[::1]:1\"")), "[::1]:1");
    assert_eq!(listen(Setup::whole().env("PORT", "x").env("TASKHOOK__SERVER__LISTEN", "[::1]:2")), "[::1]:2");
}

#[test]
fn a_manus_key_alone_is_a_source() {
    let config = Setup::whole().load();
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["manus"]);
    let manus = manus(&Setup::whole());
    assert_eq!((manus.api_version, manus.api_key.unwrap().expose()), (provider::manus::ApiVersion::V2, "sk-very-secret"));
}

#[test]
fn the_manus_key_fills_the_sources_that_have_none() {
    let file = "[sources.one]\nprovider = \"manus\"\n[sources.two]\nprovider = \"manus\"\napi_key = \"sk-two\"";
    let config = Setup::whole().file(file).load();
    let keys = config.sources.iter().map(|(name, source)| {
        let provider::Own::Manus(manus) = &source.own else { panic!("not Manus") };
        (name.as_str(), manus.api_key.as_ref().unwrap().expose())
    });
    assert_eq!(keys.collect::<Vec<_>>(), [("one", "sk-very-secret"), ("two", "sk-two")]);
}

#[test]
fn the_limit_of_bodies_is_handed_down_to_sources_that_set_none() {
    let file = "[server]\nmax_body_bytes = \"3MiB\"\n[sources.one]\nprovider = \"manus\"\n\
                [sources.two]\nprovider = \"manus\"\nmax_body_bytes = \"1MiB\"";
    let config = Setup::whole().file(file).load();
    assert_eq!(config.sources["one"].max_body_bytes(), 3 << 20);
    assert_eq!(config.sources["two"].max_body_bytes(), 1 << 20);
}

#[test]
fn public_urls_lose_the_slash_at_their_end() {
    let config = Setup::whole().env("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com/base//").load();
    assert_eq!(*config.server.public_url, ["https://hooks.example.com/base"]);
}

#[test]
fn routes_keep_the_order_of_the_file() {
    let config = Setup::whole().file("[[routes]]\nname = \"z\"\nto = \"log\"\n[[routes]]\nname = \"a\"\nto = [\"log\"]").load();
    assert_eq!(config.routes.iter().filter_map(|route| route.name.as_deref()).collect::<Vec<_>>(), ["z", "a"]);
}

#[test]
fn the_admin_section_can_be_read_without_a_source() {
    let setup = Setup::empty().env("TASKHOOK__ADMIN__LISTEN", "127.0.0.1:7000");
    assert_eq!(super::Config::load_admin(&setup.inputs).unwrap().listen.port(), 7000);
}

#[test]
fn rust_log_is_handed_on() {
    assert_eq!(Setup::whole().dot_env("RUST_LOG=debug\n").load().rust_log.as_deref(), Some("debug"));
}

fn manus(setup: &Setup) -> provider::manus::Config {
    let config = setup.load();
    let provider::Own::Manus(manus) = &config.sources["manus"].own else { panic!("not Manus") };
    manus.as_ref().clone()
}
