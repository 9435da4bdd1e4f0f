//! What the user reads who made a mistake: the key, the place, and what to write instead.

use super::Setup;

#[test]
fn nothing_at_all_is_set() {
    insta::assert_snapshot!(Setup::empty().errors(), @r#"
    error: no source is configured, so nothing could be received
    hint: for Manus, set the variable `MANUS_API_KEY`; a key is made at https://manus.im, in the settings of the API integration
    hint: or add to the configuration file:

        [sources.manus]
        provider = "manus"
        api_key_file = "/run/secrets/manus_api_key"
    "#);
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
    insta::assert_snapshot!(setup.errors(), @"
    error: taskhook.toml:1:1: unknown key `public_url`
    hint: the nearest key is `server.public_url`
    error: taskhook.toml:5:2: unknown key `servr`
    hint: the nearest key is `server`
    error: environment variable `TASKHOOK__LOG__LEVL`: unknown key `log.levl`
    hint: the nearest variable is `TASKHOOK__LOG__LEVEL`
    error: taskhook.toml:4:1: unknown key `server.max_conections`
    hint: the nearest key is `server.max_connections`
    error: .env:2: `TASKHOOK__STORE__URI`: unknown key `store.uri`
    hint: the nearest variable is `TASKHOOK__STORE__URL`
    error: taskhook.toml:10:1: unknown key `sources.manus.api_kye`
    hint: the nearest key is `sources.manus.api_key`
    error: taskhook.toml:11:1: unknown key `sources.manus.zzz`
    hint: the keys here are `api_version`, `api_key`, `base_url`, `public_key_file`, `requests_per_minute`, `ownership`, `quarantine_after`, `fetch_patience`, `order_wait`, `background_wait`, `fetch`, `reconcile`, `timeout`, `allow_ips`, `credits_per_day`, `max_body_bytes`, `path_token`, `schema_file`, `verify`
    error: taskhook.toml:15:1: unknown key `destinations.crm.secrt_file`
    hint: the nearest key is `destinations.crm.secret_file`
    error: taskhook.toml:18:1: unknown key `routes[0].wen`
    hint: the nearest key is `routes[0].when`
    ");
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
    insta::assert_snapshot!(setup.errors(), @r#"
    error: flag `--log-format`: `log.format` must be "auto" or "text" or "json", not "xml"
    hint: the default is `auto`
    error: taskhook.toml:2:1: `log.level` must be "off" or "error" or "warn" or "info" or "debug" or "trace", not "loud"
    hint: the default is `info`
    error: taskhook.toml:8:1: `server.commit_timeout` must be a duration such as "4s" or "2m", not "soon"
    hint: the default is `4s`
    error: taskhook.toml:4:1: `server.listen` is refused: invalid socket address syntax
    hint: the default is `0.0.0.0:8080`
    error: taskhook.toml:6:1: `server.max_body_bytes` must be a size such as "64MiB", not "many"
    hint: the default is `2MiB`
    error: taskhook.toml:5:1: `server.max_connections` must be a whole number, not a number with a fraction
    hint: the default is `512`
    error: environment variable `TASKHOOK__SERVER__MAX_INFLIGHT_BYTES`: `server.max_inflight_bytes` must be a size such as "64MiB", not "lots"
    hint: the default is `64MiB`
    error: taskhook.toml:7:1: `server.request_timeout` must be a duration such as "4s" or "2m", not a whole number
    hint: the default is `4s`
    error: taskhook.toml:11:1: `admin.token` must be text, not a whole number
    error: environment variable `TASKHOOK__STORE__MIN_FREE_BYTES`: `store.min_free_bytes` must be a size such as "64MiB", not "-1"
    hint: the default is `256MiB`
    error: taskhook.toml:18:1: unknown key `sources.manus.reconcile.x`
    hint: the keys here are `interval`, `grace`, `horizon`, `backfill`
    error: taskhook.toml:14:1: `sources.manus.api_key` must be text, not a list
    error: taskhook.toml:16:1: `sources.manus.requests_per_minute` must be a whole number, not -1
    error: taskhook.toml:15:1: `sources.manus.verify` must be "signature" or "authorization" or "none"
    error: taskhook.toml:20:14: `routes[0].to[1]` must be text, not a whole number
    error: taskhook.toml:21:1: `routes[0].unknown` must be `true` or `false`, not text
    "#);
}

#[test]
fn a_section_that_is_no_table() {
    let setup = Setup::whole().file("server = 1\nsources = \"manus\"\ndestinations = []\n[routes]\nto = \"log\"");
    insta::assert_snapshot!(setup.errors(), @"
    error: taskhook.toml:3:1: `destinations` must be a table
    error: taskhook.toml:4:2: `routes` must be a list of tables
    hint: each route begins with a line `[[routes]]`
    error: taskhook.toml:1:1: `server` must be a table
    error: taskhook.toml:2:1: `sources` must be a table
    ");
}

#[test]
fn named_sections_need_a_good_name_and_a_known_kind() {
    let setup = Setup::whole().file(
        "[sources.Manus]\nprovider = \"manus\"\n[sources.a]\nprovider = \"mnaus\"\n[sources.b]\napi_key = \"secret-1\"\n\
         [destinations]\nc = 5\n[destinations.d]\nkind = 5\n[destinations.e]\nkind = \"http\"\n",
    );
    insta::assert_snapshot!(setup.errors(), @r#"
    error: taskhook.toml:1:10: `Manus` cannot be a name
    hint: a name is 1 to 32 of a-z, 0-9 and _, and begins with a letter
    error: taskhook.toml:4:1: `sources.a.provider` must be "custom" or "magic_hour" or "manus" or "standard_webhooks" or "webrun", not "mnaus"
    error: taskhook.toml:5:10: `sources.b` needs `provider`
    hint: `provider` is "custom" or "magic_hour" or "manus" or "standard_webhooks" or "webrun"
    error: taskhook.toml:8:1: `destinations.c` must be a table
    error: taskhook.toml:10:1: `destinations.d.kind` must be "command" or "email" or "http" or "log" or "slack" or "sql"
    error: taskhook.toml:11:15: `destinations.e` needs `url`
    "#);
}

#[test]
fn a_file_that_is_not_toml() {
    insta::assert_snapshot!(Setup::whole().file("[server]\nlisten = \"secret-1\nx = 1").errors(), @r#"error: taskhook.toml:2:19: this is not TOML: invalid basic string, expected `"`"#);
    insta::assert_snapshot!(Setup::whole().file("[server]\nlisten = \"a\"\nlisten = \"b\"").errors(), @"error: taskhook.toml:3:1: this is not TOML: duplicate key");
    insta::assert_snapshot!(Setup::whole().file("[server]\nmax_connections = 99999999999999999999").errors(), @"error: taskhook.toml:2:19: `server.max_connections` is a number that is too large");
}

#[test]
fn a_file_that_cannot_be_read() {
    let mut setup = Setup::whole().env("TASKHOOK_CONFIG", "nowhere.toml");
    insta::assert_snapshot!(setup.errors(), @"error: cannot read the configuration file `nowhere.toml`: there is no such file");
    setup.inputs.file = Some(".".into());
    insta::assert_snapshot!(setup.errors(), @"error: cannot read the configuration file `.`: it is a directory");
}

#[test]
fn a_line_of_dot_env_that_says_nothing() {
    insta::assert_snapshot!(Setup::whole().dot_env("A=1\nMANUS_API_KEY=secret-1 secret-2\n").errors(), @"
    error: .env:2: this is not a line like `NAME=value`
    hint: a value with spaces or `$` goes into single quotes
    ");
    insta::assert_snapshot!(Setup::whole().dot_env("A=1\n\nMANUS_API_KEY secret-1\n").errors(), @"
    error: .env:3: this is not a line like `NAME=value`
    hint: a value with spaces or `$` goes into single quotes
    ");
}

#[test]
fn routes_in_the_environment() {
    let setup = Setup::whole().env("TASKHOOK__ROUTES__0__TO", "log").dot_env("TASKHOOK__ROUTES=x\n");
    insta::assert_snapshot!(setup.errors(), @"
    error: .env:1: `TASKHOOK__ROUTES`: routes are set in the configuration file only
    error: environment variable `TASKHOOK__ROUTES__0__TO`: routes are set in the configuration file only
    ");
}

#[test]
fn a_variable_with_single_underscores() {
    let setup = Setup::whole().env("TASKHOOK_SERVER_LISTEN", "[::]:1").dot_env("TASKHOOK_ADMIN_TOKEN=secret-1\n");
    insta::assert_snapshot!(setup.errors(), @"
    error: the variable `TASKHOOK_SERVER_LISTEN` sets nothing
    hint: its name is `TASKHOOK__SERVER__LISTEN`
    error: the variable `TASKHOOK_ADMIN_TOKEN` sets nothing
    hint: its name is `TASKHOOK__ADMIN__TOKEN`
    ");
    // What Kubernetes sets beside a service called `taskhook`.
    Setup::whole().env("TASKHOOK_SERVICE_HOST", "10.0.0.1").env("TASKHOOK_PORT_8080_TCP_PORT", "8080").load();
}

#[test]
fn a_port_that_is_none() {
    insta::assert_snapshot!(Setup::whole().env("PORT", "http").errors(), @"
    error: environment variable `PORT`: `server.listen` is refused: invalid socket address syntax
    hint: the default is `0.0.0.0:8080`
    ");
}

#[test]
fn routes_that_could_not_work() {
    let setup = Setup::whole()
        .file("[[routes]]\nto = \"lgo\"\n\n[[routes]]\nname = \"results\"\nto = \"log\"\nwhen = \"evnt.type == 'task_stopped'\"");
    insta::assert_snapshot!(setup.errors(), @"
    error: taskhook.toml:1:1: route `#1`: there is no destination `lgo`; there are `log`
    error: taskhook.toml:4:1: route `results`: `when`: line 1, column 1: `evnt` is not known; did you mean `event`?
    ");
}

#[test]
fn a_log_filter_that_is_none() {
    insta::assert_snapshot!(Setup::whole().env("RUST_LOG", "taskhook=loud").errors(), @r#"error: the variable `RUST_LOG` is not a log filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5"#);
}
