//! taskhook: the durable inbox for AI-agent webhooks.

pub mod clock;
pub mod event;
pub mod http;
pub mod retry;
pub mod setting;
pub mod task;
