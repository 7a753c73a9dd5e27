//! What passes between agent and driver, and travels between server and agent.

use serde::{Deserialize, Serialize};
use vimana_model::host::Accelerator;
use vimana_model::image::ImageFormat;
use vimana_model::ssh_key::SshKey;
use vimana_model::unit::Resources;
use vimana_model::user_data::UserData;
use vimana_model::{ImageId, VmId};

/// What one Incarnation is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncarnationSpec {
    pub vm_id: VmId,
    pub run_epoch: u64,
    /// vCPUs, guest memory, and the size of the disk the guest sees. The disk
    /// is never smaller than the image.
    pub resources: Resources,
    pub image: ImageRef,
    pub seed: Seed,
}

/// An image, identified so that a host's cache can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    pub id: ImageId,
    pub format: ImageFormat,
    pub size_bytes: u64,
    /// Hexadecimal SHA-256 of the stored bytes.
    pub sha256: String,
}

/// The guest's first configuration, delivered as a NoCloud disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// A valid DNS label.
    pub host_name: String,
    pub ssh_key: Option<SshKey>,
    pub user_data: Option<UserData>,
}

/// What a host's hypervisor is and can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// For people: "QEMU 10.0.2".
    pub hypervisor: String,
    pub accelerator: Accelerator,
    /// How the accelerator was chosen, for people.
    pub accelerator_note: String,
    /// A running machine can get more vCPUs and memory.
    #[serde(default)]
    pub hot_resize: bool,
}

/// Whether a machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "power", rename_all = "snake_case", deny_unknown_fields)]
pub enum Power {
    /// Disk and seed are there, the machine was never started.
    Prepared,
    Running,
    /// Its memory is saved on the host's disk; no process is left.
    Saved,
    /// The guest switched itself off; no process is left, the disk is.
    Off,
    /// The process ended without being asked to. The disk is still there.
    Crashed {
        /// For people: "the QEMU process was killed by signal 9".
        reason: String,
    },
}

/// One Incarnation as the driver sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    pub vm_id: VmId,
    pub run_epoch: u64,
    pub power: Power,
}
