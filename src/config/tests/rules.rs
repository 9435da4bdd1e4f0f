//! The rules between keys.

use super::Setup;

fn manus_without(public_url: &str) -> Setup {
    Setup::whole().env("TASKHOOK__SERVER__PUBLIC_URL", public_url)
}

#[test]
fn a_source_that_verifies_needs_a_public_url() {
    insta::assert_snapshot!(manus_without("").errors(), @"");
}

#[test]
fn a_source_that_verifies_nothing_needs_none() {
    let file = "[sources.test]\nprovider = \"manus\"\nverify = \"none\"\nfetch = \"off\"";
    let setup = Setup::empty().file(file);
    assert!(setup.load().server.public_url.is_empty());
    let http = setup.env("TASKHOOK__SERVER__PUBLIC_URL", "http://hooks.example.com").load();
    assert_eq!(*http.server.public_url, ["http://hooks.example.com"]);
}

#[test]
fn a_public_url_is_https_unless_its_host_is_loopback() {
    for loopback in ["http://localhost:8080", "http://127.0.0.9", "http://[::1]:8080/base"] {
        assert_eq!(*manus_without(loopback).load().server.public_url, [loopback]);
    }
    insta::assert_snapshot!(manus_without("http://hooks.example.com/").errors(), @"");
}

#[test]
fn a_public_url_has_no_query_fragment_user_or_other_scheme() {
    let urls = "https://a.example.com?x=1,https://b.example.com#x,https://me:secret-1@c.example.com,ftp://d.example.com,\
                e.example.com,https://f example.com,https://";
    insta::assert_snapshot!(manus_without(urls).errors(), @"");
}

#[test]
fn off_loopback_the_admin_listener_needs_a_token() {
    let setup = Setup::whole().env("TASKHOOK__ADMIN__LISTEN", "0.0.0.0:8081");
    insta::assert_snapshot!(setup.errors(), @"");
    setup.env("TASKHOOK__ADMIN__TOKEN", "secret-1").load();
}

#[test]
fn the_listeners_do_not_overlap() {
    insta::assert_snapshot!(Setup::whole().env("PORT", "8081").errors(), @"");
    let any = Setup::whole().env("PORT", "0").env("TASKHOOK__ADMIN__LISTEN", "127.0.0.1:0");
    assert_eq!(any.load().server.listen.port(), 0);
}

#[test]
fn bounds_are_more_than_nothing() {
    let setup = Setup::whole().file(
        "[server]\nmax_connections = 0\nmax_inflight_bytes = 0\nmax_body_bytes = \"0B\"\nheader_timeout = \"0s\"\n\
         request_timeout = \"0s\"\ncommit_timeout = \"0s\"\ndrain_timeout = \"0s\"",
    );
    insta::assert_snapshot!(setup.errors(), @"");
    insta::assert_snapshot!(Setup::whole().env("TASKHOOK__SERVER__MAX_INFLIGHT_BYTES", "1MiB").errors(), @"");
}

#[test]
fn the_store_is_one_that_this_release_has() {
    let setup = Setup::whole().env("TASKHOOK__STORE__URL", "postgres://me:secret-1@db.example.com/taskhook");
    insta::assert_snapshot!(setup.errors(), @"");
    insta::assert_snapshot!(Setup::whole().env("TASKHOOK__STORE__URL", "sqlite://").errors(), @"");
}

#[test]
fn what_a_source_finds_wrong_with_itself_is_told_with_its_place() {
    let setup = Setup::empty().env("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com").file(
        "[sources.a]\nprovider = \"manus\"\nbase_url = \"https://api.manus.ai/v1\"\nfetch = \"off\"\n\
         [sources.b]\nprovider = \"manus\"\npath_token = \"a/b\"",
    );
    insta::assert_snapshot!(setup.errors(), @"");
}
