//! taskhook: the durable inbox for AI-agent webhooks.

pub mod action;
pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod destination;
pub mod event;
pub mod http;
pub mod keys;
pub mod provider;
pub mod rate;
pub mod receive;
pub mod retry;
pub mod route;
pub mod server;
pub mod setting;
pub mod signature;
pub mod simulator;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod template;
pub mod text;
pub mod worker;
