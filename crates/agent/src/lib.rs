//! The agent: one per host. It carries out the server's commands through a
//! [`vimana_driver::HostDriver`] and reports what the host holds.
//!
//! The agent dials out. Machines outlive it: the driver re-adopts them, and the
//! inventory in each session's first frame tells the server of them. What it
//! was commanded it keeps in a ledger, so that no command has its effect twice
//! and none that is out of date has any.
//!
//! What it is made of, its [`Parts`], can all be memory: then it runs in a
//! simulation, on virtual time.

mod agent;
pub mod capacity;
mod config;
mod console;
mod data_dir;
pub mod datastore;
mod enrolment;
mod images;
mod journal;
mod lease;
mod ledger;
pub mod limits;
mod meter;
mod renewal;
mod saved;
mod session;
mod stop;
mod tasks;
mod transfer;
pub mod watchdog;
mod work;

pub use agent::{Agent, StartError};
pub use config::{Config, Parts, PartsError, Timing};
pub use data_dir::{DataDir, DataDirError};
pub use enrolment::{EnrolError, Enrolment, JoinTerms, PostError};
pub use images::{ImageSource, LocalImage};
pub use journal::{FileJournal, Journal, MemoryJournal};
pub use lease::Lease;
pub use ledger::session_number;
pub use meter::Meter;
pub use saved::{Datastore, Fetched};
pub use stop::{StopError, stop_machines};
pub use watchdog::Watchdog;
