//! What `config/deploy` says is true of the program: its variables are keys, its probes are there, and its times and numbers fit the
//! settings that they stand beside.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use taskhook::event::Watch;
use taskhook::store::model::JobKind;
use taskhook::telemetry::{Kind, METRICS};

use crate::harness::{Harness, send};

const DOCKERFILE: &str = include_str!("../../Dockerfile");
const ONE: &str = include_str!("../../config/deploy/compose.yaml");
const REPLICAS: &str = include_str!("../../config/deploy/compose-replicas.yaml");
const CADDY: &str = include_str!("../../config/deploy/Caddyfile-replicas");
const KUBERNETES: &str = include_str!("../../config/deploy/kubernetes.yaml");
const DASHBOARD: &str = include_str!("../../config/deploy/monitoring/grafana.json");
const RULES: &str = include_str!("../../config/deploy/monitoring/taskhook.rules.yaml");
const RULE_TESTS: [&str; 2] = [
    include_str!("../../config/deploy/monitoring/taskhook.rules.test.yaml"),
    include_str!("../../config/deploy/monitoring/taskhook.quiet.test.yaml"),
];
const PROMETHEUS: &str = include_str!("../../config/deploy/monitoring/prometheus.yaml");
const MONITORING: &str = include_str!("../../src/docs/monitoring.md");
/// What work takes that is handed back after `server.drain_timeout`, and the end of the process.
const MARGIN: f64 = 2.0;
/// Connections that PostgreSQL keeps for its superusers.
const RESERVED: u64 = 3;

type Variables = BTreeMap<String, String>;

/// The documents of a YAML file.
fn documents(yaml: &str) -> Vec<Value> {
    // Debian's own Python has Debian's packages.
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    python.stdin.take().expect("piped").write_all(yaml.as_bytes()).expect("it reads");
    let output = python.wait_with_output().expect("it ends");
    assert!(output.status.success(), "it is no YAML, or `tests/run` was not there to install python3-yaml");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

/// What `ENV` of the image sets.
fn image() -> Variables {
    let mut variables = Variables::new();
    for line in DOCKERFILE.lines().skip_while(|line| !line.starts_with("ENV TASKHOOK")) {
        let (name, value) = line.trim_start_matches("ENV ").trim_end_matches('\\').trim().split_once('=').unwrap();
        variables.insert(name.to_owned(), value.to_owned());
        if !line.ends_with('\\') {
            break;
        }
    }
    assert!(variables.len() >= 5, "{variables:?}");
    variables
}

/// What a container with these `variables` and `files` comes to, over what the image sets. The files lie below a folder in place of `/`.
fn effective(variables: &Variables, files: &[(&str, &str)]) -> toml::Table {
    let root = tempfile::tempdir().unwrap();
    let moved = |text: &str| {
        let at = |folder: &str| format!("{}{folder}", root.path().display());
        text.replace("/run/secrets", &at("/run/secrets")).replace("/etc/taskhook", &at("/etc/taskhook"))
    };
    for (path, content) in files {
        let path = root.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, moved(content)).unwrap();
    }
    let mut all = image();
    all.extend(variables.clone());
    let output = Command::new(env!("CARGO_BIN_EXE_taskhook"))
        .arg("config")
        .current_dir(root.path())
        .env_clear()
        .envs(all.iter().map(|(name, value)| (name, moved(value))))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    toml::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

/// `8s`, as a key or Compose has it.
fn seconds(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.find(|each: char| !each.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => panic!("{text}: which unit?"),
    };
    number.parse::<f64>().unwrap() * unit
}

/// A time of `[server]`.
fn server(settings: &toml::Table, key: &str) -> f64 {
    seconds(settings["server"][key].as_str().unwrap())
}

/// The store is in the PostgreSQL that the file of the URL names, and what one replica saves the others see.
#[track_caller]
fn is_for_replicas(settings: &toml::Table) {
    let (store, archive) = (&settings["store"], &settings["archive"]);
    assert!(store["url"].as_str().unwrap().starts_with("postgres://taskhook:"), "{store}");
    assert!(!store.to_string().contains("a-password"), "{store}");
    assert!(archive["url"].as_str().unwrap().starts_with("s3://") || archive["shared"].as_bool().unwrap(), "{archive}");
}

/// A stop has the time that the program takes for it.
#[track_caller]
fn may_end(grace: f64, settings: &toml::Table) {
    let needed = server(settings, "shutdown_delay") + server(settings, "drain_timeout") + MARGIN;
    assert!(grace >= needed, "{grace} s until it is killed; it may take {needed} s");
}

/// The value of a directive of the Caddyfile.
fn directive(name: &str) -> Vec<&'static str> {
    let mut found =
        CADDY.lines().map(str::split_whitespace).filter_map(|mut words| (words.next() == Some(name)).then_some(words));
    let words = found.next().unwrap_or_else(|| panic!("no `{name}`")).collect();
    assert!(found.next().is_none(), "`{name}` twice");
    words
}

// --- Compose --------------------------------------------------------------------------------------------------------------------

/// The variables of a service, with the host put in.
fn environment(service: &Value) -> Variables {
    let mut variables = Variables::from([("MANUS_API_KEY".to_owned(), "sk-test".to_owned())]);
    for (name, value) in service["environment"].as_object().unwrap() {
        let value = text(value);
        let value = value
            .split_once("${TASKHOOK_HOST:?")
            .map_or(value.to_owned(), |(before, rest)| format!("{before}hooks.example.com{}", rest.split_once('}').unwrap().1));
        variables.insert(name.clone(), value);
    }
    variables
}

/// The services that run taskhook, by name, and what each comes to.
fn taskhooks(compose: &Value) -> BTreeMap<String, toml::Table> {
    let url = "postgres://taskhook:a-password@postgres/taskhook?sslmode=disable\n";
    let files = [("/run/secrets/store_url", url), ("/run/secrets/admin_token", "a-token\n")];
    let services = compose["services"].as_object().unwrap().iter();
    let services = services.filter(|(_, service)| text(&service["image"]) == "taskhook");
    services.map(|(name, service)| (name.clone(), effective(&environment(service), &files))).collect()
}

/// Each service is written as the image allows, may end in peace, and names only what the file has.
#[track_caller]
fn compose(yaml: &str) -> (Value, BTreeMap<String, toml::Table>) {
    let compose = documents(yaml).remove(0);
    let taskhooks = taskhooks(&compose);
    for (name, settings) in &taskhooks {
        let service = &compose["services"][name];
        may_end(seconds(text(&service["stop_grace_period"])), settings);
        // The image has its own.
        assert!(service.get("healthcheck").is_none(), "{name}");
        assert_eq!((&service["read_only"], &service["cap_drop"]), (&true.into(), &json!(["ALL"])), "{name}");
    }
    for service in compose["services"].as_object().unwrap().values() {
        let volumes = service["volumes"].as_array().into_iter().flatten().map(|volume| text(volume).split(':').next().unwrap());
        for volume in volumes {
            let known = match volume.strip_prefix("./") {
                Some(file) => std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/deploy").join(file).exists(),
                None => compose["volumes"].as_object().unwrap().contains_key(volume),
            };
            assert!(known, "{volume}");
        }
        for secret in service["secrets"].as_array().into_iter().flatten() {
            assert!(compose["secrets"].as_object().unwrap().contains_key(text(secret)), "{secret}");
        }
        for other in service["depends_on"].as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(compose["services"][other].get("healthcheck").is_some(), "{other} says nothing of its health");
        }
        // What a file of a secret is read from is mounted.
        for (name, value) in environment(service).iter().filter(|(name, _)| name.ends_with("_FILE")) {
            let secret = value.strip_prefix("/run/secrets/").unwrap_or_else(|| panic!("{name}={value}"));
            assert!(list(&service["secrets"]).iter().any(|mounted| text(mounted) == secret), "{name}: {secret} is not mounted");
        }
    }
    (compose, taskhooks)
}

/// What is set of PostgreSQL on its command line.
fn setting(postgres: &Value, name: &str) -> Option<String> {
    let words = list(&postgres["command"]).iter().map(text);
    words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

#[test]
fn compose_for_one_machine_is_in_order() {
    let (_, taskhooks) = compose(ONE);
    assert_eq!(taskhooks.len(), 1);
    let url = taskhooks["taskhook"]["store"]["url"].as_str().unwrap();
    assert_eq!(url, "sqlite:///data/taskhook.db");
}

#[test]
fn compose_for_replicas_is_in_order() {
    let (compose, taskhooks) = compose(REPLICAS);
    assert_eq!(taskhooks.len(), 2);
    let mut connections = RESERVED;
    for settings in taskhooks.values() {
        is_for_replicas(settings);
        connections += u64::try_from(settings["store"]["max_connections"].as_integer().unwrap()).unwrap();
    }
    let postgres = &compose["services"]["postgres"];
    let has = setting(postgres, "max_connections").unwrap().parse::<u64>().unwrap();
    assert!(connections <= has, "{connections} connections, of {has}");
    let version = text(&postgres["image"]).strip_prefix("postgres:").unwrap();
    assert!(version.parse::<u32>().is_ok(), "{version} is no major version");
    for key in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(setting(postgres, key), None);
    }
    assert_eq!(text(&postgres["environment"]["POSTGRES_USER"]), "taskhook");
    // Both see the same files.
    let volumes: BTreeSet<_> = taskhooks.keys().map(|name| compose["services"][name]["volumes"].to_string()).collect();
    assert_eq!(volumes.len(), 1, "{volumes:?}");
}

#[test]
fn caddy_knows_the_replicas_and_sees_a_stop_in_time() {
    let (compose, taskhooks) = compose(REPLICAS);
    let mounted = list(&compose["services"]["caddy"]["volumes"]).iter().map(text);
    assert!(mounted.into_iter().any(|volume| volume == "./Caddyfile-replicas:/etc/caddy/Caddyfile:ro"));
    let (_, upstreams) = CADDY.split_once("{$TASKHOOK_UPSTREAMS:").unwrap();
    let upstreams: BTreeSet<_> = upstreams.split_once('}').unwrap().0.split_whitespace().map(str::to_owned).collect();
    let port = |settings: &toml::Table| settings["server"]["listen"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let services: BTreeSet<_> = taskhooks.iter().map(|(name, settings)| format!("{name}:{}", port(settings))).collect();
    assert_eq!(upstreams, services);

    assert_eq!(directive("health_uri"), ["/readyz"]);
    assert!(
        !CADDY.lines().any(|line| line.trim_start().starts_with("lb_retry_match")),
        "a POST that may have arrived is sent again"
    );
    let time = |name| seconds(directive(name)[0]);
    for settings in taskhooks.values() {
        assert!(time("health_interval") + time("health_timeout") < server(settings, "shutdown_delay"));
        assert!(time("keepalive") < server(settings, "header_timeout"));
        assert!(time("response_header_timeout") > server(settings, "request_timeout") + server(settings, "commit_timeout"));
    }
    assert!(time("dial_timeout") < time("lb_try_duration"));
}

// --- Kubernetes -----------------------------------------------------------------------------------------------------------------

/// The object of this kind and name.
fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "{kind} {name} twice");
    object
}

/// What the pods of the Deployment come to.
fn in_pods(objects: &[Value]) -> toml::Table {
    let container = &object(objects, "Deployment", "taskhook")["spec"]["template"]["spec"]["containers"][0];
    let variables = list(&container["env"]).iter().map(|one| (text(&one["name"]).to_owned(), text(&one["value"]).to_owned()));
    let file = text(&object(objects, "ConfigMap", "taskhook")["data"]["taskhook.toml"]);
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
    let url = "postgres://taskhook:a-password@db.example.com/taskhook\n";
    // The keys that the command at the head of the file puts into the secret; each has its content here.
    let contents = [("store_url", url), ("admin_token", "a-token\n"), ("manus_api_key", "sk-test\n"), ("crm_secret", secret)];
    let keys: BTreeSet<_> =
        KUBERNETES.split("--from-file=").skip(1).map(|rest| rest.split_whitespace().next().unwrap()).collect();
    assert_eq!(keys, contents.iter().map(|(key, _)| *key).collect());
    let files: Vec<_> = contents.iter().map(|(key, content)| (format!("/run/secrets/taskhook/{key}"), *content)).collect();
    let files = files.iter().map(|(path, content)| (path.as_str(), *content)).chain([("/etc/taskhook/taskhook.toml", file)]);
    effective(&variables.collect(), &files.collect::<Vec<_>>())
}

#[test]
fn kubernetes_pods_are_set_up_for_replicas_and_may_end() {
    let objects = documents(KUBERNETES);
    let settings = in_pods(&objects);
    is_for_replicas(&settings);
    let deployment = &object(&objects, "Deployment", "taskhook")["spec"];
    let pod = &deployment["template"]["spec"];
    may_end(pod["terminationGracePeriodSeconds"].as_f64().unwrap(), &settings);
    assert!(deployment["replicas"].as_u64().unwrap() >= 2);
    assert_eq!(deployment["strategy"]["rollingUpdate"], json!({"maxUnavailable": 0, "maxSurge": 1}));
    // The user is the image's.
    let user = DOCKERFILE.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let context = &pod["securityContext"];
    assert_eq!(format!("{}:{}", context["runAsUser"], context["runAsGroup"]), user);
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    // What is mounted is a volume, and what is a volume is mounted.
    let names = |list_of: &Value| list(list_of).iter().map(|one| text(&one["name"]).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
}

#[test]
fn kubernetes_leads_to_the_ports_that_are_listened_on() {
    let objects = documents(KUBERNETES);
    let settings = in_pods(&objects);
    let container = &object(&objects, "Deployment", "taskhook")["spec"]["template"]["spec"]["containers"][0];
    let ports: BTreeMap<_, _> =
        list(&container["ports"]).iter().map(|port| (text(&port["name"]), port["containerPort"].to_string())).collect();
    for (name, section) in [("http", "server"), ("admin", "admin")] {
        let listen = settings[section]["listen"].as_str().unwrap();
        assert_eq!(listen, format!("0.0.0.0:{}", ports[name]));
    }
    for (service, port) in [("taskhook", "http"), ("taskhook-admin", "admin")] {
        let ports = list(&object(&objects, "Service", service)["spec"]["ports"]);
        assert_eq!(ports.len(), 1);
        assert_eq!((text(&ports[0]["name"]), text(&ports[0]["targetPort"])), (port, port));
    }
    // What selects pods selects these.
    let labels = &object(&objects, "Deployment", "taskhook")["spec"]["template"]["metadata"]["labels"];
    let deployment = &object(&objects, "Deployment", "taskhook")["spec"];
    let budget = &object(&objects, "PodDisruptionBudget", "taskhook")["spec"];
    assert!(budget["maxUnavailable"].as_u64() < deployment["replicas"].as_u64());
    let mut selectors = vec![&deployment["selector"]["matchLabels"], &budget["selector"]["matchLabels"]];
    selectors.extend(["taskhook", "taskhook-admin"].map(|name| &object(&objects, "Service", name)["spec"]["selector"]));
    let spread = list(&deployment["template"]["spec"]["topologySpreadConstraints"]);
    selectors.extend(spread.iter().map(|constraint| &constraint["labelSelector"]["matchLabels"]));
    assert!(selectors.iter().all(|selector| *selector == labels), "{selectors:?}");
    // The way in is the address that senders sign, and leads to nothing but webhooks and probes.
    let ingress = &object(&objects, "Ingress", "taskhook")["spec"];
    let rule = &ingress["rules"][0];
    assert_eq!(format!("https://{}", text(&rule["host"])), settings["server"]["public_url"].as_str().unwrap());
    assert_eq!(ingress["tls"][0]["hosts"][0], rule["host"]);
    let paths: Vec<_> = list(&rule["http"]["paths"]).iter().map(|path| text(&path["path"])).collect();
    assert_eq!(paths, ["/webhooks/", "/healthz", "/readyz"]);
    for path in list(&rule["http"]["paths"]) {
        assert_eq!(path["backend"]["service"], json!({"name": "taskhook", "port": {"name": "http"}}));
    }
}

#[tokio::test]
async fn the_probes_are_there() {
    let objects = documents(KUBERNETES);
    let container = &object(&objects, "Deployment", "taskhook")["spec"]["template"]["spec"]["containers"][0];
    let probe = |name: &str| {
        let probe = &container[name]["httpGet"];
        assert_eq!(text(&probe["port"]), "http");
        text(&probe["path"]).to_owned()
    };
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"].map(probe);
    assert_eq!(probes, ["/healthz", "/healthz", "/readyz"]);
    let harness = Harness::new().await;
    for path in probes.iter().map(String::as_str).chain(directive("health_uri")) {
        assert_eq!(send(harness.request(Method::GET, path)).await.status.as_u16(), 200, "{path}");
    }
}

// --- Monitoring -----------------------------------------------------------------------------------------------------------------

/// The metrics of ours that `text` names, as they are called in [`METRICS`]: of a histogram, without the ending of a series of it.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let names = text.split(|c| !word(c)).filter(|name| name.starts_with("taskhook_"));
    let metric = |name: &str| {
        let histogram = METRICS.iter().find(|(known, kind, _)| {
            *kind == Kind::Histogram && ["_bucket", "_sum", "_count"].iter().any(|ending| name == format!("{known}{ending}"))
        });
        histogram.map_or(name, |(known, ..)| known).to_owned()
    };
    names.map(metric).collect()
}

fn all_metrics() -> BTreeSet<String> {
    METRICS.iter().map(|(name, ..)| (*name).to_owned()).collect()
}

/// The rules, each as it is written.
fn rules() -> Vec<Value> {
    let documents = documents(RULES);
    list(&documents[0]["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

/// The words that `expr` compares a label with.
fn compared(expr: &str, label: &str) -> Vec<String> {
    let label = format!("{label}=");
    let found = expr.match_indices(&label);
    let quoted = |at: usize| expr[at..].split('"').nth(1).unwrap_or_default().to_owned();
    found.map(|(at, _)| quoted(at)).filter(|word| !word.contains('$')).collect()
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = list(&dashboard["panels"]);
    let mut shown = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = text(&panel["title"]);
        assert!(!text(&panel["description"]).is_empty(), "{title}");
        assert!(!list(&panel["targets"]).is_empty(), "{title}");
        for target in list(&panel["targets"]) {
            let expr = text(&target["expr"]);
            let of = metrics_in(expr);
            assert!(of.len() == 1 || expr.contains("up{"), "{title}: {expr}");
            assert!(expr.contains("job=\"$job\""), "{title}: another job is not ours: {expr}");
            shown.extend(of);
        }
        for source in [&panel["datasource"]].into_iter().chain(list(&panel["targets"]).iter().map(|target| &target["datasource"]))
        {
            assert_eq!(*source, json!({"type": "prometheus", "uid": "${DS_PROMETHEUS}"}), "{title}");
        }
    }
    assert_eq!(shown, all_metrics());
    // Whoever imports it is asked for the data source; where it is provisioned, a variable is it.
    assert_eq!(dashboard["__inputs"][0]["name"], "DS_PROMETHEUS");
    assert!(
        list(&dashboard["templating"]["list"]).iter().any(|one| one["name"] == "DS_PROMETHEUS" && one["type"] == "datasource")
    );
    assert_eq!(dashboard["id"], Value::Null);
    // Each panel has a number and a place of its own.
    let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(numbers.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        for (x, y) in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(x < 24 && taken.insert((x, y)), "{} lies over another", panel["title"]);
        }
    }
}

#[test]
fn the_rules_ask_for_what_there_is() {
    let rules = rules();
    let recorded: BTreeSet<_> = rules.iter().filter_map(|rule| rule["record"].as_str().map(str::to_owned)).collect();
    let watches: Vec<_> = Watch::ALL.iter().map(|watch| watch.as_str()).collect();
    for rule in &rules {
        let expr = text(&rule["expr"]);
        let named = metrics_in(expr);
        assert!(named.is_subset(&all_metrics()), "{expr}: {named:?}");
        assert!(!named.is_empty() || expr.contains("up{job=") || recorded.iter().any(|name| expr.contains(name)), "{expr}");
        for word in compared(expr, "type") {
            assert!(watches.contains(&word.as_str()), "{expr}: there is no {word}");
        }
        assert!(compared(expr, "job").iter().all(|job| job == "taskhook"));
        let Some(alert) = rule["alert"].as_str() else { continue };
        assert!(["critical", "warning", "info"].contains(&text(&rule["labels"]["severity"])), "{alert}");
        for note in ["summary", "description"] {
            assert!(text(&rule["annotations"][note]).len() > 10, "{alert}: {note}");
        }
        // It is tested, and told of.
        assert!(RULE_TESTS.iter().any(|tests| tests.contains(&format!("alertname: {alert}\n        exp_alerts:"))), "{alert}");
        assert!(MONITORING.contains(&format!("| `{alert}` |")), "{alert}");
    }
    let alerts = rules.iter().filter(|rule| rule["alert"].is_string()).count();
    assert_eq!(MONITORING.matches("\n| `Taskhook").count(), alerts);
    // Commands that a note names are ones.
    let notes: Vec<_> = rules.iter().filter_map(|rule| rule["annotations"]["description"].as_str()).collect();
    let commands = notes.iter().flat_map(|note| note.split('`')).filter(|piece| piece.starts_with("taskhook "));
    let mut looked_at = 0;
    for command in commands {
        let words: Vec<_> =
            command.split(" --").next().unwrap().split_whitespace().skip(1).filter(|word| *word != "ID").collect();
        let help = Command::new(env!("CARGO_BIN_EXE_taskhook")).args(&words).arg("--help").output().unwrap();
        assert!(help.status.success(), "{command}");
        looked_at += 1;
    }
    assert!(looked_at > 10);
}

#[test]
fn prometheus_asks_the_admin_listener_with_its_token() {
    let config = documents(PROMETHEUS).remove(0);
    let job = &config["scrape_configs"][0];
    assert_eq!((&job["job_name"], &config["rule_files"][0]), (&json!("taskhook"), &json!("taskhook.rules.yaml")));
    assert!(text(&job["authorization"]["credentials_file"]).starts_with("/run/secrets/"));
    let default: toml::Table = toml::from_str(include_str!("../../config/default.toml")).unwrap();
    assert_eq!(text(&job["static_configs"][0]["targets"][0]), default["admin"]["listen"].as_str().unwrap());
}

#[test]
fn every_metric_is_told_of() {
    let rows: Vec<_> = MONITORING.lines().filter(|line| line.starts_with("| `taskhook_")).collect();
    assert_eq!(rows.len(), METRICS.len());
    for (name, kind, _) in METRICS {
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{name}` |"))).unwrap_or_else(|| panic!("{name}"));
        let kind = format!("{kind:?}").to_lowercase();
        assert_eq!(row.split('|').nth(2).unwrap().trim(), kind, "{name}");
    }
}

/// What the program tells is what the tables, the rules and the dashboard know: the labels as well.
#[tokio::test]
async fn the_metrics_have_the_labels_that_are_asked_for() {
    let mut harness = crate::work::start(crate::harness::Setup::new()).await;
    let ask = taskhook::simulator::manus::End::Ask { question: "A or B?".to_owned(), options: Vec::new() };
    let plan = taskhook::simulator::manus::Plan::new([taskhook::simulator::manus::Turn::new(ask)]);
    let task = harness.manus.create_task(crate::harness::KEY, plan);
    harness.manus.finish_all().await;
    harness.drain().await;
    let reply = harness.admin_request(Method::POST, &format!("/api/v1/tasks/manus/{task}/reply")).json(&json!({"message": "A"}));
    assert_eq!(send(reply).await.status.as_u16(), 200);
    harness.accept(&crate::work::stopped("e1", "nobodys")).await;
    harness.clock.advance(jiff::SignedDuration::from_secs(90));
    let told = send(harness.admin_request(Method::GET, "/metrics")).await;
    let told = String::from_utf8_lossy(&told.body).into_owned();
    let value = |series: &str| {
        let line =
            told.lines().find(|line| line.starts_with(&format!("{series} "))).unwrap_or_else(|| panic!("{series}: {told}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    for kind in JobKind::ALL {
        let due = value(&format!("taskhook_oldest_due_job_seconds{{kind=\"{}\"}}", kind.as_str()));
        assert!((due - if kind == JobKind::Prove { 90.0 } else { 0.0 }).abs() < 0.001, "{kind:?}: {due}");
    }
    let newest: jiff::Timestamp = harness.list("events").await[0]["received_at"].as_str().unwrap().parse().unwrap();
    let heard = value("taskhook_last_event_timestamp_seconds{source=\"manus\"}");
    assert!((heard - newest.as_millisecond() as f64 / 1000.0).abs() < 0.001, "{heard}");
    assert!(value("taskhook_waiting_tasks{source=\"manus\"}") >= 0.0 && value("taskhook_open_tasks{source=\"manus\"}") >= 1.0);
    assert!(value("taskhook_answers_total{source=\"manus\",outcome=\"sent\"}") >= 1.0);
    assert!(value("taskhook_store_free_bytes") > 0.0);
    // It goes into quarantine.
    harness.drain().await;
    harness.advance(std::time::Duration::from_hours(1)).await;
}
