//! What an agent is told at its start.

use std::time::Duration;

use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::Resources;
use vimana_protocol::dial::{Retry, Server};

use crate::limits::REFUSED_RETRY;

/// Everything an agent needs beside its driver and its directory.
#[derive(Clone)]
pub struct Config {
    pub server: Server,
    pub name: HostName,
    pub zone: ZoneName,
    /// What the host gives to VMs.
    pub capacity: Resources,
    pub timing: Timing,
}

/// How patient an agent is.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// After a lost connection.
    pub retry: Retry,
    /// After the server refused the Hello.
    pub refused: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            refused: REFUSED_RETRY,
        }
    }
}
