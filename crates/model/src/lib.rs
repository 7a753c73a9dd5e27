//! The words of Vimana, each defined once: ids, names, units, states, the
//! transition table, the views that leave the server, and errors.
//!
//! Pure and safe for wasm: no clock, no randomness, no I/O. The server, the
//! CLI and the portal validate with the very same code.

pub mod action;
pub mod backup;
pub mod datastore;
pub mod error;
pub mod evacuation;
pub mod event;
pub mod flavor;
pub mod host;
pub mod id;
pub mod image;
pub mod migration;
pub mod name;
pub mod operation;
pub mod pending;
pub mod quota;
pub mod request;
pub mod saved;
pub mod schedule;
pub mod session;
pub mod snapshot;
pub mod ssh_key;
pub mod state;
pub mod template;
pub mod tenant;
pub mod time;
pub mod unit;
pub mod user_data;
pub mod vm;
pub mod volume;

pub use error::{Error, ErrorKind, FieldError, Problem, Result};
pub use id::*;
pub use state::VmState;
pub use time::Timestamp;
