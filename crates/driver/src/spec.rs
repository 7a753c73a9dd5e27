//! What passes between agent and driver, and travels between server and agent.

use serde::{Deserialize, Serialize};
use vimana_model::host::{Accelerator, Hardware};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::ssh_key::SshKeys;
use vimana_model::unit::Resources;
use vimana_model::user_data::UserData;
use vimana_model::{ImageId, VmId};

use crate::text;

/// What one Incarnation is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncarnationSpec {
    pub vm_id: VmId,
    pub run_epoch: u64,
    /// vCPUs, guest memory, and the size of the disk the guest sees. The disk
    /// is never smaller than the image.
    pub resources: Resources,
    /// The one of the host that its disk and a saved memory are in.
    #[serde(
        default = "DatastoreName::local",
        skip_serializing_if = "DatastoreName::is_local"
    )]
    pub datastore: DatastoreName,
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
    pub ssh_key: Option<SshKeys>,
    pub user_data: Option<UserData>,
}

/// What a host's hypervisor is and can do. A later version may say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// For people: "QEMU 10.0.2".
    #[serde(deserialize_with = "text::deserialize")]
    pub hypervisor: String,
    pub accelerator: Accelerator,
    /// How the accelerator was chosen, for people.
    #[serde(deserialize_with = "text::deserialize")]
    pub accelerator_note: String,
    /// A running machine can get more vCPUs and memory.
    #[serde(default)]
    pub hot_resize: bool,
    /// Absent where the agent is older.
    #[serde(default)]
    pub hardware: Option<Hardware>,
}

/// Whether a machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "power", rename_all = "snake_case")]
pub enum Power {
    /// Disk and seed are there, the machine was never started.
    Prepared,
    Running,
    /// Its memory is saved on the host's disk; no process is left.
    Saved,
    /// A process waits for the machine, which comes from another host, or has
    /// come: it never ran here.
    Arriving,
    /// The machine stands still here and has arrived on another host.
    Left,
    /// The guest switched itself off; no process is left, the disk is.
    Off,
    /// The process ended without being asked to. The disk is still there.
    Crashed {
        /// For people: "the QEMU process was killed by signal 9".
        #[serde(deserialize_with = "text::deserialize")]
        reason: String,
    },
    /// A word of a later version. The machine is there, and nothing more is
    /// known of it. No driver says so.
    #[serde(other)]
    Unknown,
}

/// One Incarnation as the driver sees it. A later version may say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    pub vm_id: VmId,
    pub run_epoch: u64,
    pub power: Power,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_machine_in_a_state_without_a_word_here_is_still_seen() {
        let vm_id = VmId::from_parts(1, [1; 10]);
        let later = json!({
            "vm_id": vm_id, "run_epoch": 7, "since": "noon",
            "power": { "power": "hibernating", "to": ["disk"] },
        });
        let seen: Observed = serde_json::from_value(later).unwrap();
        let known = Observed {
            vm_id,
            run_epoch: 7,
            power: Power::Unknown,
        };
        assert_eq!(seen, known);
        let more = json!({ "power": "off", "cause": "battery" });
        assert_eq!(serde_json::from_value::<Power>(more).unwrap(), Power::Off);
    }
}
