//! The integration tests: one program, a file a topic.

mod demo;
mod harness;
mod house;
mod kill;
mod receive;
mod store;
