//! `vimana-server`: the portal, the REST interface, and the sessions of
//! agents and schedulers around one engine.
//!
//! Only wiring lives here: a REST handler extracts, makes one call of the
//! engine, and maps the answer. [`router`] shows what is where, [`guard`] what
//! every request passes.

mod api;
pub mod config;
mod control;
mod data_dir;
pub mod fsck;
mod guard;
mod health;
mod limits;
pub mod open_files;
mod pace;
mod peer;
mod router;
mod secret;
mod serve;
mod session_store;
mod site;
mod socket;
mod start;
mod state;
mod tls;
pub mod tool;

pub use api::openapi;
pub use config::Config;
pub use start::{Running, start, start_in};
pub use tool::Tool;
