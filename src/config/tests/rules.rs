//! The rules between keys.

use super::{Config, Setup};

fn manus_without(public_url: &str) -> Setup {
    Setup::whole().env("TASKHOOK__SERVER__PUBLIC_URL", public_url)
}

#[test]
fn a_source_that_verifies_needs_a_public_url() {
    insta::assert_snapshot!(manus_without("").errors(), @r#"
    error: `server.public_url` is not set, but the signatures that source `manus` verifies cover it
    hint: set the variable `TASKHOOK__SERVER__PUBLIC_URL=https://hooks.example.com`
    hint: or run `taskhook dev`, which takes the URL of a tunnel that runs on this machine
    hint: or add to the configuration file:

        [server]
        public_url = "https://hooks.example.com"
    "#);
}

#[test]
fn one_with_a_tunnel_needs_none_and_all_else_holds() {
    let setup = manus_without("");
    let config = Config::load_with_tunnel(&setup.inputs).unwrap();
    assert!(config.server.public_url.is_empty() && config.sources.contains_key("manus"));
    let wrong = manus_without("http://hooks.example.com");
    assert!(Config::load_with_tunnel(&wrong.inputs).unwrap_err().to_string().contains("must be https"));
    assert!(Config::load_with_tunnel(&Setup::empty().inputs).unwrap_err().to_string().contains("no source is configured"));
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
    insta::assert_snapshot!(manus_without("http://hooks.example.com/").errors(), @"
    error: environment variable `TASKHOOK__SERVER__PUBLIC_URL`: `server.public_url` must be https, unless its host is loopback
    hint: did you mean `https://hooks.example.com`?
    ");
}

#[test]
fn a_public_url_has_no_query_fragment_user_or_other_scheme() {
    let urls = "https://a.example.com?x=1,https://b.example.com#x,https://me:secret-1@c.example.com,ftp://d.example.com,\
                e.example.com,https://f example.com,https://";
    insta::assert_snapshot!(manus_without(urls).errors(), @"
    error: environment variable `TASKHOOK__SERVER__PUBLIC_URL`: `server.public_url` (number 1) must not have a query (`?`) or a fragment (`#`)
    error: environment variable `TASKHOOK__SERVER__PUBLIC_URL`: `server.public_url` (number 2) must not have a query (`?`) or a fragment (`#`)
    error: environment variable `TASKHOOK__SERVER__PUBLIC_URL`: `server.public_url` (number 3) must not hold a user or a password
    error: environment variable `TASKHOOK__SERVER__PUBLIC_URL`: `server.public_url` (number 4) must begin with `https://`
    error: environment variable `TASKHOOK__SERVER__PUBLIC_URL`: `server.public_url` (number 5) is not a URL
    hint: did you mean `https://e.example.com`?
    error: environment variable `TASKHOOK__SERVER__PUBLIC_URL`: `server.public_url` (number 6) is not a URL
    error: environment variable `TASKHOOK__SERVER__PUBLIC_URL`: `server.public_url` (number 7) is not a URL
    ");
}

#[test]
fn off_loopback_the_admin_listener_needs_a_token() {
    let setup = Setup::whole().env("TASKHOOK__ADMIN__LISTEN", "0.0.0.0:8081");
    insta::assert_snapshot!(setup.errors(), @r#"
    error: environment variable `TASKHOOK__ADMIN__LISTEN`: `admin.listen` (0.0.0.0:8081) is not loopback, so `admin.token` must be set
    hint: set `TASKHOOK__ADMIN__TOKEN`, or `token_file = "…"` under `[admin]`
    hint: or listen on loopback: `listen = "127.0.0.1:8081"` under `[admin]`
    "#);
    setup.env("TASKHOOK__ADMIN__TOKEN", "secret-1").load();
}

#[test]
fn a_token_to_look_with_is_another_than_the_one_to_act_with() {
    let setup = Setup::whole().env("TASKHOOK__ADMIN__READ_TOKEN", "secret-1");
    insta::assert_snapshot!(setup.errors(), @"
    error: environment variable `TASKHOOK__ADMIN__READ_TOKEN`: `admin.read_token` keeps nobody out as long as `admin.token` is not set
    hint: set `admin.token`, or `admin.token_file`, as well
    ");
    let setup = setup.env("TASKHOOK__ADMIN__TOKEN", "secret-1");
    insta::assert_snapshot!(setup.errors(), @"error: environment variable `TASKHOOK__ADMIN__READ_TOKEN`: `admin.read_token` is the same as `admin.token`: who has it may do everything");
    let config = setup.env("TASKHOOK__ADMIN__TOKEN", "secret-2").load();
    assert_eq!(config.admin.read_token.unwrap().expose(), "secret-1");
}

#[test]
fn the_listeners_do_not_overlap() {
    insta::assert_snapshot!(Setup::whole().env("PORT", "8081").errors(), @"
    error: `admin.listen` (127.0.0.1:8081) overlaps with `server.listen` (0.0.0.0:8081)
    hint: give each a port of its own
    ");
    let any = Setup::whole().env("PORT", "0").env("TASKHOOK__ADMIN__LISTEN", "127.0.0.1:0");
    assert_eq!(any.load().server.listen.port(), 0);
}

#[test]
fn bounds_are_more_than_nothing() {
    let setup = Setup::whole().file(
        "[server]\nmax_connections = 0\nmax_inflight_bytes = 0\nmax_body_bytes = \"0B\"\nheader_timeout = \"0s\"\n\
         request_timeout = \"0s\"\ncommit_timeout = \"0s\"\ndrain_timeout = \"0s\"",
    );
    insta::assert_snapshot!(setup.errors(), @"
    error: taskhook.toml:2:1: `server.max_connections` must be more than 0
    error: taskhook.toml:3:1: `server.max_inflight_bytes` must be more than 0
    error: taskhook.toml:4:1: `server.max_body_bytes` must be more than 0
    error: taskhook.toml:5:1: `server.header_timeout` must be more than 0
    error: taskhook.toml:6:1: `server.request_timeout` must be more than 0
    error: taskhook.toml:7:1: `server.commit_timeout` must be more than 0
    error: taskhook.toml:8:1: `server.drain_timeout` must be more than 0
    ");
    insta::assert_snapshot!(Setup::whole().env("TASKHOOK__SERVER__MAX_INFLIGHT_BYTES", "1MiB").errors(), @"error: environment variable `TASKHOOK__SERVER__MAX_INFLIGHT_BYTES`: `server.max_inflight_bytes` is less than `server.max_body_bytes` (2MiB): such a body could never come in");
}

/// With a store in a PostgreSQL, and an archive that every replica sees.
fn on_postgres(url: &str) -> Setup {
    Setup::whole().env("TASKHOOK__STORE__URL", url).env("TASKHOOK__ARCHIVE__URL", "off")
}

#[test]
fn the_store_is_a_file_or_a_postgresql() {
    for url in [
        "postgres://me:secret-1@db.example.com/taskhook",
        "postgresql://me@db.example.com:6432/taskhook?sslmode=disable",
        "postgres://me@%2Frun%2Fpostgresql/taskhook",
    ] {
        assert!(on_postgres(url).load().store.is_shared(), "{url}");
    }
    assert!(!Setup::whole().load().store.is_shared());
    insta::assert_snapshot!(on_postgres("mysql://me:secret-1@db.example.com/taskhook").errors(), @"
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` must begin with `sqlite://` or `postgres://`
    hint: for example `sqlite://data/taskhook.db`
    hint: or `postgres://user:password@db.example.com/taskhook`
    ");
    insta::assert_snapshot!(on_postgres("secret-1").errors(), @"
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` must begin with `sqlite://` or `postgres://`
    hint: for example `sqlite://data/taskhook.db`
    hint: or `postgres://user:password@db.example.com/taskhook`
    ");
    insta::assert_snapshot!(on_postgres("sqlite://").errors(), @"
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` names no file
    hint: for example `sqlite://data/taskhook.db`
    ");
}

#[test]
fn what_is_wrong_with_the_url_of_a_postgresql_is_told_without_its_password() {
    let told: Vec<_> = [
        "postgres://me:secret-1@db.example.com",
        "postgres://me:secret-1@/taskhook",
        "postgres://me:secret-1@db.example.com:many/taskhook",
        "postgres://me:secret-1@db.example.com/taskhook?sslmode=secret-2",
        "postgres://me:secret-1@db.example.com/taskhook?pool=secret-2",
        "postgres://me:secret-1@db.example.com/taskhook?connect_timeout=secret-2",
    ]
    .map(|url| on_postgres(url).errors())
    .into();
    insta::assert_snapshot!(told.join("\n"), @"
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` cannot be used: it names no database; write `postgres://user:password@host/database`
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` cannot be used: it names no host; write `postgres://user:password@host/database`
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` cannot be used: invalid connection string: invalid value for option `port`
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` cannot be used: `sslmode` is `disable`, `prefer`, `require` or `verify-full`
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` cannot be used: invalid connection string: it sets something behind its `?` that is not known; in a password, `@`, `/` and `?` are `%40`, `%2F` and `%3F`
    error: environment variable `TASKHOOK__STORE__URL`: `store.url` cannot be used: invalid connection string: invalid value for option `connect_timeout`
    ");
}

#[test]
fn what_belongs_to_a_postgresql_is_within_reason() {
    let file = "[store]\nurl = \"postgres://me@db.example.com/taskhook\"\nlisten_url = \"sqlite://secret-1\"\nschema = \"a-b\"\n\
                max_connections = 4\n[archive]\nurl = \"off\"";
    insta::assert_snapshot!(Setup::whole().file(file).errors(), @"
    error: taskhook.toml:3:1: `store.listen_url` must begin with `postgres://`
    hint: it is as `store.url`, past the pooler
    error: taskhook.toml:4:1: `store.schema` must be 1 to 63 of a-z, 0-9 and _, and begin neither with a digit nor with `pg_`
    error: taskhook.toml:5:1: `store.max_connections` must be at least 5: some are for receiving and for other replicas
    ");
    let listen_url = |url: &str| Setup::whole().env("TASKHOOK__STORE__LISTEN_URL", url);
    insta::assert_snapshot!(listen_url("postgres://me:secret-1@db.example.com/taskhook").errors(), @"
    error: environment variable `TASKHOOK__STORE__LISTEN_URL`: `store.listen_url` is set, but `store.url` is no PostgreSQL
    hint: remove it, or set `store.url` to a `postgres://…`
    ");
    let on_postgres =
        |listen_url: &str| on_postgres("postgres://me@pooler/taskhook").env("TASKHOOK__STORE__LISTEN_URL", listen_url);
    insta::assert_snapshot!(on_postgres("postgres://me:secret-1@db.example.com").errors(), @"error: environment variable `TASKHOOK__STORE__LISTEN_URL`: `store.listen_url` cannot be used: it names no database; write `postgres://user:password@host/database`");
    on_postgres("postgres://me:secret-1@db.example.com/taskhook").load();
    let schema = |name: &str| Setup::whole().file(&format!("[store]\nschema = \"{name}\""));
    for good in ["t", "_hooks_2", &"x".repeat(63)] {
        assert_eq!(schema(good).load().store.schema, *good);
    }
    for bad in ["", "2", "Hooks", "pg_hooks", "hooks; DROP", "häken", &"x".repeat(64)] {
        assert!(schema(bad).errors().contains("`store.schema` must be 1 to 63 of a-z"), "{bad}");
    }
}

#[test]
fn replicas_see_the_same_files() {
    let url = "postgres://me:secret-1@db.example.com/taskhook";
    let setup = |archive: &str| Setup::whole().env("TASKHOOK__STORE__URL", url).file(&format!("[archive]\n{archive}"));
    // As a user meets it who changes one line.
    insta::assert_snapshot!(Setup::whole().env("TASKHOOK__STORE__URL", url).errors(), @r#"
    error: `archive.url` is `file://data/files`, a folder, and `store.url` a PostgreSQL, which replicas may share: all of them must see the same files
    hint: to keep files in S3 or what speaks like it, write in the configuration file:

        [archive]
        url = "s3://bucket/prefix"

    hint: where that folder is on a file system that every replica has, or there is one replica only, write in the configuration file:

        [archive]
        url = "file://data/files"
        shared = true

    hint: to save no files, write in the configuration file:

        [archive]
        url = "off"

    hint: or set one of the variables `TASKHOOK__ARCHIVE__URL=s3://bucket/prefix`, `TASKHOOK__ARCHIVE__SHARED=true` and `TASKHOOK__ARCHIVE__URL=off`
    "#);
    assert!(
        setup("url = \"file:///data\"")
            .errors()
            .starts_with("error: taskhook.toml:2:1: `archive.url` is `file:///data`, a folder")
    );
    for good in ["shared = true", "url = \"s3://bucket\"", "url = \"off\"", "url = \"file:///data\"\nshared = true"] {
        assert!(setup(good).load().store.is_shared(), "{good}");
    }
    assert!(!Setup::whole().load().archive.shared, "a store in a file needs none of it");
}

#[test]
fn what_a_source_finds_wrong_with_itself_is_told_with_its_place() {
    let setup = Setup::empty().env("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com").file(
        "[sources.a]\nprovider = \"manus\"\nbase_url = \"https://api.manus.ai/v1\"\nfetch = \"off\"\n\
         [sources.b]\nprovider = \"manus\"\npath_token = \"a/b\"",
    );
    insta::assert_snapshot!(setup.errors(), @r#"
    error: taskhook.toml:4:1: `sources.a`: `fetch = "off"` needs `verify = "none"`: without the API nothing proves that a signed event is yours
    error: taskhook.toml:3:1: `sources.a`: `base_url` must be an origin without a path: write `base_url = "https://api.manus.ai"`
    error: taskhook.toml:5:10: `sources.b`: `api_key` is missing: set it, `api_key_file` or MANUS_API_KEY (for tests without an account: `verify = "none"` and `fetch = "off"`)
    error: taskhook.toml:7:1: `sources.b`: `path_token` may hold only letters, digits, `-`, `_`, `.` and `~`, at most 128 of them
    "#);
}

#[test]
fn senders_of_every_kind_are_read_from_variables_and_files() {
    let setup = Setup::empty()
        .write("secret", "text, with a comma and a line end\n")
        .file("[sources.github]\nprovider = \"custom\"\npreset = \"github\"\nsecret_file = \"secret\"")
        .env("TASKHOOK__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1")
        .env("TASKHOOK__SOURCES__GITHUB__ALLOW_IPS", "192.0.2.0/24,2001:db8::7")
        .env("TASKHOOK__SOURCES__GITHUB__EVENT_TYPE", "header:x-github-event")
        .env("TASKHOOK__SOURCES__SW__PROVIDER", "standard_webhooks")
        .env("TASKHOOK__SOURCES__SW__SECRET", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .env("TASKHOOK__SOURCES__SW__TOLERANCE", "10m");
    let printed = setup.load().to_toml();
    for line in [
        "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]",
        "allow_ips = [\"192.0.2.0/24\", \"2001:db8::7\"]",
        "event_type = \"header:x-github-event\"",
        "signature_prefix = \"sha256=\"",
        "secret = \"[redacted]\"",
        "secret = [\"[redacted]\", \"[redacted]\"]",
        "tolerance = \"10m\"",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}:\n{printed}");
    }
    // What is printed loads again once the secrets are put back: here, any secrets.
    let whole = printed.replace("[\"[redacted]\", \"[redacted]\"]", "\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"");
    let again = Setup::empty().file(&whole).load().to_toml();
    assert_eq!(
        again.replace("\"[redacted]\"", ""),
        printed.replace("[\"[redacted]\", \"[redacted]\"]", "").replace("\"[redacted]\"", "")
    );
}

#[test]
fn what_is_wrong_with_a_sender_is_told_with_its_place() {
    let setup = Setup::empty().env("TASKHOOK__SERVER__TRUSTED_PROXIES", "proxy.example.com").file(
        "[sources.a]\nprovider = \"custom\"\npreset = \"github\"\nsecret = \"secret-of-github\"\nallow_ips = [\"10.0.0.1/8\"]\n\
         signature_heder = \"x\"\nsecrt_file = \"x\"\n[sources.b]\nprovider = \"custom\"\nscheme = \"hmac-md5\"\n\
         [sources.c]\nprovider = \"custom\"\npreset = \"stripe\"\ntimestamp_header = \"x-time\"\nsecret = \"secret-of-stripe\"\n\
         [sources.d]\nprovider = \"standard_webhooks\"\nsecret = \"whsec_\"\nverify = \"authorization\"\n\
         [sources.e]\nprovider = \"standard_webhooks\"",
    );
    insta::assert_snapshot!(setup.errors(), @r#"
    error: environment variable `TASKHOOK__SERVER__TRUSTED_PROXIES`: `server.trusted_proxies` is refused: "proxy.example.com" is no address and no range such as "10.0.0.0/8"
    error: taskhook.toml:7:1: unknown key `sources.a.secrt_file`
    hint: the nearest key is `sources.a.secret_file`
    error: taskhook.toml:6:1: unknown key `sources.a.signature_heder`
    hint: the nearest key is `sources.a.signature_header`
    error: taskhook.toml:5:14: `sources.a.allow_ips[0]` is refused: "10.0.0.1/8" is an address within a range: the range is "10.0.0.0/8"
    error: taskhook.toml:10:1: `sources.b.scheme` must be "hmac-sha1" or "hmac-sha256" or "hmac-sha512" or "ed25519" or "rsa" or "static-header" or "basic", not "hmac-md5"
    error: taskhook.toml:14:1: `sources.c`: `timestamp_header` and `timestamp_name` are both set: the time stands in one place
    error: taskhook.toml:18:1: `sources.d`: `secret` cannot be used: a secret holds at least 16 bytes and at most 512, this one 0; a sender with another form of secret is set up with `provider = "custom"`
    error: taskhook.toml:19:1: `sources.d`: `verify` must be "signature" or "none" here
    error: taskhook.toml:20:10: `sources.e`: `secret` is missing: set it, `secret_file`, or `public_key`; only `verify = "none"` does without
    "#);
}

#[test]
fn an_archive_is_somewhere_and_has_room() {
    insta::assert_snapshot!(Setup::whole().file("[archive]\nurl = \"data/files\"\nmax_files = 0").errors(), @"
    error: taskhook.toml:2:1: `archive.url` must begin with `file://` or `s3://`, or be `off`
    error: taskhook.toml:3:1: `archive.max_files` must be more than 0
    ");
    insta::assert_snapshot!(Setup::whole().env("TASKHOOK__ARCHIVE__URL", "s3://results").env("TASKHOOK__ARCHIVE__ACCESS_KEY_ID", "AK").errors(), @"
    error: environment variable `TASKHOOK__ARCHIVE__ACCESS_KEY_ID`: `archive.access_key_id` is set, and `archive.secret_access_key` is not
    ");
    let aws = Setup::whole()
        .env("TASKHOOK__ARCHIVE__URL", "s3://results")
        .env("AWS_REGION", "eu-central-1")
        .dot_env("AWS_REGION=x\nAWS_A=y\n");
    let archive = aws.load().archive;
    assert_eq!((archive.aws["AWS_REGION"].expose(), archive.aws["AWS_A"].expose(), archive.aws.len()), ("eu-central-1", "y", 2));
    assert!(Setup::whole().env("TASKHOOK__ARCHIVE__URL", "off").load().archive.is_off());
    let secret = Setup::whole()
        .write("key", "s3-secret\n")
        .file("[archive]\naccess_key_id = \"AK\"\nsecret_access_key_file = \"key\"")
        .load();
    assert_eq!(secret.archive.secret_access_key.as_ref().unwrap().expose(), "s3-secret");
    assert!(!format!("{secret:?}{}", secret.to_toml()).contains("s3-secret"));
}

#[test]
fn traces_go_to_an_address_and_what_the_collector_asks_for_stays_secret() {
    let wrong = Setup::whole()
        .file("[trace]\nendpoint = \"localhost:4318\"\nsample = 2")
        .env("TASKHOOK__TRACE__HEADERS", "a=b,secret-1")
        .env("TASKHOOK__TRACE__SERVICE_NAME", " ");
    insta::assert_snapshot!(wrong.errors(), @r#"
    error: taskhook.toml:2:1: `trace.endpoint` must begin with https:// or http://, such as "http://localhost:4318"
    error: environment variable `TASKHOOK__TRACE__HEADERS`: `trace.headers` (number 2) is not of the form `NAME=VALUE`
    error: environment variable `TASKHOOK__TRACE__SERVICE_NAME`: `trace.service_name` is empty
    error: taskhook.toml:3:1: `trace.sample` is 2, which is no share: 0 is none, 1 is all
    "#);
    assert_eq!(Setup::whole().load().trace.endpoint, None, "off, unless somebody says where to");
    // What is meant for others on the machine sets nothing.
    assert_eq!(Setup::whole().env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318").load().trace.endpoint, None);
    let trace = Setup::whole()
        .env("TASKHOOK__TRACE__ENDPOINT", "http://localhost:4318")
        .env("TASKHOOK__TRACE__HEADERS_FILE", "headers")
        .env("TASKHOOK__TRACE__SAMPLE", "0.25")
        .write("headers", "authorization=Bearer very-secret\nx-scope=a\n")
        .load();
    assert_eq!((trace.trace.sample, trace.trace.check().len()), (0.25, 0));
    assert!(!format!("{trace:?}{}", trace.to_toml()).contains("very-secret"));
}

#[test]
fn files_are_served_at_an_address_of_their_own() {
    let setup = |keys: &str| Setup::whole().file(&format!("[files]\n{keys}"));
    insta::assert_snapshot!(setup("listen = \"127.0.0.1:8082\"").errors(), @"
    error: taskhook.toml:1:2: `files.public_url` is not set, but `files.listen` is
    hint: set the URL under which readers reach it
    ");
    insta::assert_snapshot!(setup("public_url = \"https://files.example.com\"").errors(), @"
    error: taskhook.toml:1:2: `files.listen` is not set, but `files.public_url` is
    hint: set the address to listen on, such as `0.0.0.0:8082`
    ");
    insta::assert_snapshot!(setup("listen = \"0.0.0.0:8081\"\npublic_url = \"http://files.example.com\"\nlink_expiry = \"0s\"").errors(), @"
    error: taskhook.toml:2:1: `files.listen` (0.0.0.0:8081) overlaps with `admin.listen` (127.0.0.1:8081)
    hint: give each a port of its own
    error: taskhook.toml:3:1: `files.public_url` must be https, unless its host is loopback
    hint: did you mean `https://files.example.com`?
    error: taskhook.toml:4:1: `files.link_expiry` must be more than 0
    ");
    let off = setup("listen = \"127.0.0.1:8082\"\npublic_url = \"https://files.example.com/\"\n[archive]\nurl = \"off\"");
    insta::assert_snapshot!(off.errors(), @r#"
    error: taskhook.toml:2:1: `files.listen` is set, but there is no archive (`archive.url` is "off")
    "#);
    let files = setup("listen = \"127.0.0.1:8082\"\npublic_url = \"https://files.example.com/base/\"").load().files;
    assert_eq!(files.public_url.as_deref(), Some("https://files.example.com/base"));
}
