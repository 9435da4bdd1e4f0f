//! The files that users start from, compared with the code.

use std::collections::BTreeSet;

use super::Setup;
use crate::config::DEFAULT;
use crate::provider::{self, PROVIDERS};

const EXAMPLE: &str = include_str!("../../../config/example.toml");
const DOT_ENV: &str = include_str!("../../../.env.example");

/// Every key of `table` by its full name, tables left out.
fn keys(table: &toml::Table, at: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (key, value) in table {
        let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        match value {
            toml::Value::Table(inner) => found.extend(keys(inner, &path)),
            _ => {
                found.insert(path);
            }
        }
    }
    found
}

/// The example with its commented-out keys switched on: a line `#key = …` is a key, a line `# …` is a comment.
fn switched_on() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') => key.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_loads_as_it_is() {
    let setup = Setup::empty().env("MANUS_API_KEY", "sk-1").file(EXAMPLE);
    let config = setup.load();
    assert_eq!(config.sources.keys().collect::<Vec<_>>(), ["manus"]);
}

#[test]
fn the_example_loads_with_everything_switched_on() {
    // What is for a PostgreSQL alone needs one, and that an archive which every replica sees.
    let example = switched_on()
        .replace("url = \"sqlite://data/taskhook.db\"", "url = \"postgres://me@db.example.com/taskhook\"")
        .replace("shared = false", "shared = true");
    let mut setup = Setup::empty().file(&example);
    std::fs::create_dir_all(setup.directory.path().join("secrets")).unwrap();
    for file in example.split('"').filter(|text| text.starts_with("secrets/")) {
        let text = match file {
            "secrets/slack_webhook_url" => "https://hooks.slack.com/services/T0/B0/x",
            "secrets/slack_token" => "xoxb-1",
            "secrets/smtp_url" => "smtps://user:pass@mail.example.com",
            "secrets/trace_headers" => "authorization=Bearer x\n",
            "secrets/store_listen_url" | "secrets/db_url" => "postgres://user:pass@db.example.com/results",
            // Good for whatever else a secret is for.
            _ => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        };
        setup = setup.write(file, text);
    }
    setup.load();
}

#[test]
fn every_key_of_every_provider_is_in_the_example() {
    let example: toml::Table = switched_on().parse().unwrap();
    let sources = example["sources"].as_table().unwrap();
    let common = ["allow_ips", "credits_per_day", "max_body_bytes", "path_token", "schema_file", "verify"];
    let written = |provider: &str, key: &str| {
        // What every source has is explained once.
        let of = |source: &&toml::Value| source["provider"].as_str() == Some(provider) || common.contains(&key);
        let file = format!("{key}_file");
        sources.values().filter(of).any(|source| source.get(key).is_some() || source.get(&file).is_some())
    };
    for provider in PROVIDERS {
        let missing: Vec<_> = provider::Config::keys(provider).iter().filter(|key| !written(provider, key)).collect();
        assert_eq!(missing, Vec::<&&str>::new(), "{provider}");
    }
}

#[test]
fn every_key_is_in_the_example() {
    let example = keys(&switched_on().parse().unwrap(), "");
    let default = keys(&DEFAULT.parse().unwrap(), "");
    let missing: Vec<_> = default.difference(&example).collect();
    assert_eq!(missing, Vec::<&String>::new());
    // What the effective configuration prints is what the structs have, secrets and options aside.
    let setup = Setup::empty().env("MANUS_API_KEY", "sk-1").file(EXAMPLE);
    let printed = keys(&setup.load().to_toml().parse().unwrap(), "");
    let secret = |key: &&String| example.contains(&format!("{key}_file"));
    let missing: Vec<_> = printed.difference(&example).filter(|key| !secret(key)).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

#[test]
fn the_values_of_the_example_that_are_switched_off_are_the_defaults() {
    let example: toml::Table = EXAMPLE.parse().unwrap();
    let default: toml::Table = DEFAULT.parse().unwrap();
    let all: toml::Table = switched_on().parse().unwrap();
    for (section, table) in &default {
        for (key, value) in table.as_table().unwrap() {
            let own = example.get(section).and_then(|table| table.get(key));
            if own.is_none() && section != "destinations" && key != "public_url" {
                assert_eq!(all[section].get(key), Some(value), "{section}.{key}");
            }
        }
    }
}

#[test]
fn the_example_environment_has_plain_lines_that_are_known() {
    let (mut setup, mut names) = (Setup::whole(), BTreeSet::new());
    for line in DOT_ENV.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        let (name, value) = line.strip_prefix('#').unwrap_or(line).split_once('=').unwrap();
        assert!(name.chars().all(|each| each.is_ascii_uppercase() || each == '_'), "{line}");
        assert!(!value.contains([' ', '"', '\'', '$', '#']), "not plain: {line}");
        names.insert(name.to_owned());
        if !name.ends_with("_FILE") && name != "TASKHOOK_CONFIG" {
            setup = setup.env(name, value);
        }
    }
    // As it is, and with everything switched on.
    Setup::whole().dot_env(DOT_ENV).load();
    setup.env("MANUS_API_KEY", "sk-1").load();
    for key in keys(&DEFAULT.parse().unwrap(), "").iter().filter(|key| !key.starts_with("destinations")) {
        let name = format!("TASKHOOK__{}", key.to_uppercase().replace('.', "__"));
        assert!(names.contains(&name), "{name} is not in .env.example");
    }
    assert!(names.contains("MANUS_API_KEY"));
}
