//! The agent: one per host. It carries out the server's commands through a
//! [`vimana_driver::HostDriver`] and reports what the host holds.
//!
//! The agent dials out and keeps no state that matters: machines outlive it,
//! the driver re-adopts them, and the inventory in each session's first frame
//! tells the server the rest.

mod agent;
pub mod capacity;
mod config;
mod console;
mod data_dir;
mod images;
mod ledger;
pub mod limits;
mod session;
mod stop;
pub mod watchdog;
mod work;

pub use agent::{Agent, StartError};
pub use config::{Config, Timing};
pub use data_dir::{DataDir, DataDirError};
pub use stop::{StopError, stop_machines};
pub use watchdog::Watchdog;
