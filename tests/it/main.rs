//! The integration tests: one program, a file a topic.

mod demo;
mod harness;
mod house;
mod kill;
mod receive;
mod store;
mod work;
mod work_deliver;
mod work_fetch;
mod work_order;
mod work_prove;
mod work_prove_waits;
mod work_recover;
