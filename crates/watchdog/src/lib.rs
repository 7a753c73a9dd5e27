//! The watchdog: a process beside the agent that stops the host's machines
//! when nobody may vouch for them any more.
//!
//! The server grants a host a *lease*. The agent tells the watchdog until when
//! it holds; an agent that hangs or dies tells nothing more, so that one rule
//! covers a dead agent, a hung one and a lost server: when the lease is over,
//! every machine's process is killed, and `fenced.json` says so. Who was never
//! given a lease is never touched.
//!
//! | file in the agent's data directory | what |
//! | --- | --- |
//! | `watchdog.lock` | held while a watchdog runs: one per directory |
//! | `watchdog.sock` | where it is spoken to, see [`protocol`] |
//! | `watchdog.log` | what it did, by the time since the host's start |
//! | `fenced.json` | that it stopped machines, and which, see [`Fenced`] |
//! | `machines/` | the driver's: a directory per VM with its `process.json` |
//!
//! Time is the time since the host's start and goes on while the host sleeps.
//! The wall clock, which people and other machines set, plays no part.

mod client;
mod clock;
mod fenced;
mod fencing;
mod guard;
pub mod limits;
mod log;
mod machines;
pub mod protocol;

pub use client::{Client, socket_in};
pub use clock::BootTime;
pub use fenced::Fenced;
pub use guard::{Guard, StartError};
pub use machines::host_boot;

/// Where the driver keeps its machines, in the data directory.
pub const MACHINES: &str = "machines";
/// The socket's name in the data directory.
pub const SOCKET: &str = "watchdog.sock";
/// What a started watchdog prints, as a line, once it can be spoken to; any
/// other line says why it does not run.
pub const READY: &str = "ready";
