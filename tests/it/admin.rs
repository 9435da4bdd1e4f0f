//! The admin API, from outside.

mod lists;
