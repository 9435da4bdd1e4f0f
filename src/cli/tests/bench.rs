//! What `bench` says of itself.

use super::shell;

#[test]
fn benches_are_listed() {
    let (exit, out, err) = shell(&["bench", "--help"], &[]);
    assert_eq!((exit, err.as_str()), (0, ""));
    insta::assert_snapshot!(out, @"
    Measure this machine: how many events it keeps, how fast, and that none is lost

    Each bench starts what it needs on loopback, measures, and leaves nothing behind. It reads no
    configuration and needs no account. The disk that is measured is the one that `--folder` is on.

    Usage: taskhook bench [OPTIONS] <COMMAND>

    Commands:
      ingest    How many events a second are kept, beside the limit of the machine
      rate      How fast events are answered at a steady rate
      grow      What a store that grows does to speed, size and memory
      spike     A calm stream of events, and in its midst a peak
      pipeline  From an event to its delivery: how many tasks a second, how long, and where the time
                goes
      kill      Kill a `serve` under load, again and again, and look for everything that it acknowledged
      claim     What one claim costs with few and with many waiting jobs
      pages     How long pages take with a long past in the store

    Options:
          --config <FILE>
              The configuration file [variable: `TASKHOOK_CONFIG`]

          --log-level <LEVEL>
              How much is logged: off, error, warn, info, debug or trace [variable: `RUST_LOG`]

      -h, --help
              Print help (see a summary with '-h')
    ");
}

#[test]
fn each_bench_has_help() {
    insta::assert_snapshot!(shell(&["bench", "rate", "-h"], &[]).1, @"
    How fast events are answered at a steady rate

    Usage: taskhook bench rate [OPTIONS]

    Options:
          --config <FILE>      The configuration file [variable: `TASKHOOK_CONFIG`]
          --per-second <N>     Events a second [default: 1000]
          --for <TIME>         For how long [default: 30s]
          --log-level <LEVEL>  How much is logged: off, error, warn, info, debug or trace [variable:
                               `RUST_LOG`]
          --connections <N>    Connections that the events may take [default: 64]
          --sender <SENDER>    Who sends [default: manus] [possible values: manus, hmac]
          --folder <FOLDER>    Where the temporary folder is made, on the disk to be measured; by
                               default in the working directory
          --store <URL>        The store: `sqlite` for a file in that folder, or a `postgres://` URL, in
                               whose database a schema is made for the time [default: sqlite]
          --json               Print the result as JSON
      -h, --help               Print help (see more with '--help')
    ");
    for bench in ["ingest", "rate", "grow", "spike", "pipeline", "kill", "claim"] {
        let (exit, out, _) = shell(&["bench", bench, "--help"], &[]);
        assert_eq!(exit, 0, "{bench}");
        for option in ["--folder <FOLDER>", "--store <URL>", "--json"] {
            assert!(out.contains(option), "{bench}: {option}\n{out}");
        }
    }
}
