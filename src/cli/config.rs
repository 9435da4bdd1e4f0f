//! `taskhook config`: what the configuration comes to.

use super::{Context, Result};
use crate::config::{Config, DEFAULT};

/// Print the effective configuration as TOML, secrets redacted
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the built-in configuration instead, which every other layer goes over
    #[arg(long)]
    default: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Result {
    if args.default {
        return Ok(context.out.write_all(DEFAULT.as_bytes())?);
    }
    let config = Config::load(&context.inputs)?;
    Ok(context.out.write_all(config.to_toml().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::super::tests::shell;
    use super::*;

    const ENV: [(&str, &str); 3] = [
        ("MANUS_API_KEY", "sk-very-secret"),
        ("TASKHOOK__ADMIN__TOKEN", "also-secret"),
        ("TASKHOOK__SERVER__PUBLIC_URL", "https://hooks.example.com/"),
    ];

    #[test]
    fn the_defaults_are_printed_byte_for_byte() {
        let (exit, out, err) = shell(&["config", "--default"], &[]);
        assert_eq!((exit, out.as_str(), err.as_str()), (0, DEFAULT, ""));
    }

    #[test]
    fn the_effective_configuration_is_printed_without_secrets() {
        let (exit, out, err) = shell(&["config", "--log-level", "debug"], &ENV);
        assert_eq!((exit, err.as_str()), (0, ""));
        assert!(!out.contains("secret"), "{out}");
        insta::assert_snapshot!(out, @r#"
        routes = []

        [log]
        level = "debug"
        format = "auto"

        [server]
        listen = "0.0.0.0:8080"
        public_url = "https://hooks.example.com"
        trusted_proxies = []
        max_connections = 512
        max_inflight_bytes = "64MiB"
        max_body_bytes = "2MiB"
        header_timeout = "10s"
        request_timeout = "4s"
        commit_timeout = "4s"
        drain_timeout = "8s"
        shutdown_delay = "0s"
        time_zone = "UTC"

        [admin]
        listen = "127.0.0.1:8081"
        token = "[redacted]"

        [store]
        url = "sqlite://data/taskhook.db"
        schema = "taskhook"
        max_connections = 16
        min_free_bytes = "256MiB"

        [retention]
        events = "30days"
        quarantine = "7days"
        quarantine_events = 1000

        [archive]
        url = "file://data/files"
        shared = false
        max_file_bytes = "1GiB"
        max_task_bytes = "4GiB"
        max_files = 500
        file_timeout = "15m"
        wait = "30m"
        min_free_bytes = "512MiB"

        [files]
        link_expiry = "7days"

        [outbound]
        allow_private_addresses = false

        [watch]
        task_silent = "1h"
        task_waiting = "30m"
        not_delivered = "15m"
        dead_letter = "on"
        source_silent = "on"
        budget = "on"

        [trace]
        service_name = "taskhook"
        sample = 1.0

        [sources.manus]
        provider = "manus"
        api_version = "v2"
        api_key = "[redacted]"
        base_url = "https://api.manus.ai"
        requests_per_minute = 60
        ownership = "strict"
        quarantine_after = "15m"
        fetch_patience = "2m"
        order_wait = "5m"
        background_wait = "1h"
        fetch = "on"
        timeout = "10s"
        max_body_bytes = "2MiB"
        verify = "signature"

        [sources.manus.reconcile]
        interval = "2m"
        grace = "1m"
        horizon = "7days"
        backfill = "0s"

        [destinations.log]
        kind = "log"
        include = "summary"
        "#);
    }

    #[test]
    fn what_is_printed_loads_again_once_the_secrets_are_put_back() {
        let (_, printed, _) = shell(&["config"], &ENV);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("printed.toml");
        let without: Vec<_> = printed.lines().filter(|line| !line.contains("[redacted]")).collect();
        std::fs::write(&file, without.join("\n")).unwrap();
        let (exit, again, err) = shell(&["config", "--config", file.to_str().unwrap()], &ENV[..2]);
        assert_eq!((exit, again, err.as_str()), (0, printed, ""));
    }
}
