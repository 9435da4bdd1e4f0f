//! The integration tests: one program, a file a topic.
#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod again;
mod answer;
mod bench;
mod credits;
mod deliver;
mod deliver_command;
mod deliver_email;
mod deliver_slack;
mod deliver_sql;
mod demo;
mod deploy;
mod faults;
mod files;
mod harness;
mod house;
mod isolate;
mod kill;
mod magic_hour;
mod readme;
mod receive;
mod reconcile;
mod replicas;
mod retention;
mod senders;
mod store;
mod watch;
mod webrun;
mod work;
mod work_deliver;
mod work_fetch;
mod work_order;
mod work_prove;
mod work_prove_waits;
mod work_recover;
mod work_share;
