//! The integration tests: one program, a file a topic.

mod house;
