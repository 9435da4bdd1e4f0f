//! What the user reads who made a mistake: the key, the place, and what to write instead.

use super::Setup;

#[test]
fn nothing_at_all_is_set() {
    insta::assert_snapshot!(Setup::empty().errors(), @"");
}

#[test]
fn unknown_keys_name_their_place_and_the_nearest_key() {
    let setup = Setup::whole()
        .file(
            "public_url = \"https://hooks.example.com\"\n[server]\nlisten = \"0.0.0.0:8080\"\nmax_conections = 5\n\
             [servr]\nlisten = 1\n\n[sources.manus]\nprovider = \"manus\"\napi_kye = \"secret-1\"\nzzz = true\n\
             [destinations.crm]\nkind = \"http\"\nurl = \"https://crm.example.com\"\nsecrt_file = \"x\"\n\
             [[routes]]\nto = \"log\"\nwen = \"true\"",
        )
        .dot_env("A=1\nTASKHOOK__STORE__URI=secret-2\n")
        .env("TASKHOOK__LOG__LEVL", "secret-3");
    insta::assert_snapshot!(setup.errors(), @"");
}

#[test]
fn wrong_types_are_all_told_at_once_without_the_values_of_secrets() {
    let setup = Setup::whole()
        .file(
            "[log]\nlevel = \"loud\"\n[server]\nlisten = \":8080\"\nmax_connections = 1.5\nmax_body_bytes = \"many\"\n\
             request_timeout = 4\ncommit_timeout = \"soon\"\n\n[admin]\ntoken = 12345\n\
             [sources.manus]\nprovider = \"manus\"\napi_key = [\"secret-1\", \"secret-2\"]\nverify = true\n\
             requests_per_minute = -1\n[sources.manus.reconcile]\nx = 1\n\
             [[routes]]\nto = [\"log\", 1]\nunknown = \"maybe\"",
        )
        .env("TASKHOOK__SERVER__MAX_INFLIGHT_BYTES", "lots")
        .env("TASKHOOK__STORE__MIN_FREE_BYTES", "-1")
        .flag("--log-format", "log.format", "xml");
    insta::assert_snapshot!(setup.errors(), @"");
}

#[test]
fn a_section_that_is_no_table() {
    let setup = Setup::whole().file("server = 1\nsources = \"manus\"\ndestinations = []\n[routes]\nto = \"log\"");
    insta::assert_snapshot!(setup.errors(), @"");
}

#[test]
fn named_sections_need_a_good_name_and_a_known_kind() {
    let setup = Setup::whole().file(
        "[sources.Manus]\nprovider = \"manus\"\n[sources.a]\nprovider = \"mnaus\"\n[sources.b]\napi_key = \"secret-1\"\n\
         [destinations]\nc = 5\n[destinations.d]\nkind = 5\n[destinations.e]\nkind = \"http\"\n",
    );
    insta::assert_snapshot!(setup.errors(), @"");
}

#[test]
fn a_file_that_is_not_toml() {
    insta::assert_snapshot!(Setup::whole().file("[server]\nlisten = \"secret-1\nx = 1").errors(), @"");
    insta::assert_snapshot!(Setup::whole().file("[server]\nlisten = \"a\"\nlisten = \"b\"").errors(), @"");
    insta::assert_snapshot!(Setup::whole().file("[server]\nmax_connections = 99999999999999999999").errors(), @"");
}

#[test]
fn a_file_that_cannot_be_read() {
    let mut setup = Setup::whole().env("TASKHOOK_CONFIG", "nowhere.toml");
    insta::assert_snapshot!(setup.errors(), @"");
    setup.inputs.file = Some(".".into());
    insta::assert_snapshot!(setup.errors(), @"");
}

#[test]
fn a_line_of_dot_env_that_says_nothing() {
    insta::assert_snapshot!(Setup::whole().dot_env("A=1\nMANUS_API_KEY=secret-1 secret-2\n").errors(), @"");
    insta::assert_snapshot!(Setup::whole().dot_env("A=1\n\nMANUS_API_KEY secret-1\n").errors(), @"");
}

#[test]
fn routes_in_the_environment() {
    let setup = Setup::whole().env("TASKHOOK__ROUTES__0__TO", "log").dot_env("TASKHOOK__ROUTES=x\n");
    insta::assert_snapshot!(setup.errors(), @"");
}

#[test]
fn a_variable_with_single_underscores() {
    let setup = Setup::whole().env("TASKHOOK_SERVER_LISTEN", "[::]:1").dot_env("TASKHOOK_ADMIN_TOKEN=secret-1\n");
    insta::assert_snapshot!(setup.errors(), @"");
    // What Kubernetes sets beside a service called `taskhook`.
    Setup::whole().env("TASKHOOK_SERVICE_HOST", "10.0.0.1").env("TASKHOOK_PORT_8080_TCP_PORT", "8080").load();
}

#[test]
fn a_port_that_is_none() {
    insta::assert_snapshot!(Setup::whole().env("PORT", "http").errors(), @"");
}

#[test]
fn routes_that_could_not_work() {
    let setup = Setup::whole()
        .file("[[routes]]\nto = \"lgo\"\n\n[[routes]]\nname = \"results\"\nto = \"log\"\nwhen = \"evnt.type == 'task_stopped'\"");
    insta::assert_snapshot!(setup.errors(), @"");
}

#[test]
fn a_log_filter_that_is_none() {
    insta::assert_snapshot!(Setup::whole().env("RUST_LOG", "taskhook=loud").errors(), @"");
}
