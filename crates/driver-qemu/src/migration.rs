//! Machines that go from one host to another while they run.
//!
//! The target has a process that waits, and serves its empty disks to the source
//! over NBD. There a mirror of each copies it, and from then on every write of the
//! guest goes to both. Then the memory goes. When all but the last of it is there
//! QEMU stops the guest and waits: the mirrors end, in step, and nobody writes the
//! target's disks but the target; then the rest goes. By post-copy the guest is
//! stopped once the memory was gone through, the mirrors end, and the rest goes when
//! the target has the machine (`post_copy.rs`). A disk that both hosts reach
//! is opened there and not used: QEMU locks it for one process, which lets go of it
//! with the last of the memory, and the other takes it when its guest is let run.
//! Both guests stand still now,
//! and the records say of which machine it is that nobody lets it run on:
//!
//! * `arriving.json`, made with the directory: no guest ran here. It says so once
//!   one may have.
//! * `leaving.json`: nobody but [`send`](send::send) and
//!   [`call_off`](send::call_off) moves the guest.

pub mod mirror;
pub mod post_copy;
pub mod receive;
pub mod send;
pub mod tls;
pub mod watch;

use serde::{Deserialize, Serialize};
use vimana_driver::{DiskPlan, Endpoint, Fault, FaultKind};
use vimana_model::HostId;
use vimana_model::migration::Sent;

use crate::host::{Host, blocking};
use crate::qmp::QmpError;
use crate::record::Record;

/// The first QEMU whose process survives a memory that does not come whole.
pub const MIGRATING_QEMU: (u32, u32) = (9, 1);

/// Where a machine that is between two hosts goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Journey {
    Arriving(Arriving),
    Leaving(Leaving),
}

/// A machine that comes from another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arriving {
    /// The run on the other host.
    pub run_epoch: u64,
    pub from: HostId,
    /// Absent until a process listens there.
    pub endpoint: Option<Endpoint>,
    /// Its guest may have been let run here, as this run.
    pub runs_as: Option<u64>,
    /// What becomes of its disks.
    #[serde(default)]
    pub disks: DiskPlan,
}

/// A machine that goes to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    pub run_epoch: u64,
    pub to: HostId,
    pub endpoint: Endpoint,
    /// Milliseconds of the clock at the beginning.
    pub began_ms: u64,
    /// What it took, once all has arrived, or all but a part that comes later.
    pub sent: Option<Sent>,
    /// What it took with that part, once the other host has the machine.
    #[serde(default)]
    pub switched: Option<Sent>,
    /// It has arrived; that alone is found out again by asking QEMU.
    #[serde(skip)]
    pub gone: bool,
}

impl Leaving {
    /// Whether all of it has arrived that is to before the other host has it.
    pub const fn is_gone(&self) -> bool {
        self.gone || self.sent.is_some()
    }
}

impl Record for Arriving {
    const FILE: &'static str = "arriving.json";
}
impl Record for Leaving {
    const FILE: &'static str = "leaving.json";
}

fn able(host: &Host) -> Result<(), Fault> {
    if host.version >= MIGRATING_QEMU {
        return Ok(());
    }
    let (major, minor) = MIGRATING_QEMU;
    let message = format!("moving a machine needs QEMU {major}.{minor} or later on both hosts");
    Err(Fault::new(FaultKind::Unsupported, message))
}

/// Does what blocks; `what` says what cannot be done where it fails.
async fn on_disk(
    what: &'static str,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> Result<(), Fault> {
    blocking(move || work().map_err(|error| Fault::io(what, &error))).await
}

fn hypervisor(what: &str, error: &QmpError) -> Fault {
    Fault::new(FaultKind::Hypervisor, format!("{what}: {error}"))
}
