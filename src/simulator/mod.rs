//! Stand-ins for providers, which speak their real HTTP: for tests, for `taskhook demo`, and for `taskhook simulate`.
//!
//! What must hold: a simulator is what the rest of the program is held against, so it shares no code with [`crate::provider`]: it
//! is written from the provider's documentation alone, and is stricter than the real service where that finds mistakes of ours. It
//! listens where its caller says, stops when its caller says, runs on its caller's [`Clock`](crate::clock::Clock), and leaves no
//! task behind. Everything it keeps is bounded: the oldest goes first. It trusts its caller and checks nothing about where it
//! sends: it is no service to put on the open internet.
//!
//! What providers have in common is written once: what goes on and what is sent in `core`, the API's front in `front`, files
//! behind links in `shelf`, what goes wrong in `fault`.

mod board;
mod core;
mod fault;
mod front;
mod handle;
pub mod magic_hour;
pub mod manus;
mod record;
mod shelf;
#[cfg(test)]
mod tests;
pub mod webrun;

pub use self::core::Drive;
pub use fault::{ApiFault, Times, WrongAnswer};
pub use record::{Call, Delivery, Happening};
pub use shelf::File;
