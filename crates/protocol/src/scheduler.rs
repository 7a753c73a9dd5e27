//! Server and scheduler.
//!
//! `GET /scheduler/v1/session` with `Authorization: Bearer` and the
//! schedulers' secret. The server sends a snapshot first, then every change.
//! A scheduler decides and never acts: the server checks each proposal inside
//! a transaction and may refuse it. Several schedulers may be connected.

use serde::{Deserialize, Serialize};
use vimana_model::host::HostState;
use vimana_model::name::{DatastoreName, HostName, ZoneName};
use vimana_model::pending::Explanation;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{DatastoreId, HostId, Timestamp, VmId};

use crate::frame::read;

/// The version this build speaks.
pub const PROTOCOL_VERSION: u32 = 4;

/// Server to scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToScheduler {
    /// First frame; replaces all that was known.
    Snapshot {
        hosts: Vec<HostFacts>,
        pending: Vec<PendingVm>,
    },
    /// A host is new or looks different now. What it says of a datastore holds for
    /// all hosts that reach that.
    Host(HostFacts),
    /// A VM became pending, or is pending with other terms.
    Pending(PendingVm),
    /// A VM is no longer pending.
    Gone {
        vm_id: VmId,
    },
    /// Answer to one proposal.
    Verdict {
        vm_id: VmId,
        generation: u64,
        refused: Option<String>,
    },
    Heartbeat,
}

/// Scheduler to server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromScheduler {
    /// First frame.
    Hello {
        protocol: u32,
        name: String,
    },
    /// Put this VM there.
    Proposal {
        vm_id: VmId,
        generation: u64,
        host_id: HostId,
        explanation: Explanation,
    },
    /// No host takes this VM as things are.
    NoHost {
        vm_id: VmId,
        generation: u64,
        explanation: Explanation,
    },
    Heartbeat,
}

/// The name in the first frame of a session.
///
/// # Errors
/// Why there can be no session, for the scheduler's log. A scheduler of another
/// version is told so, whatever else its hello looks like.
pub fn introduction(text: &str) -> Result<String, String> {
    /// What the hellos of all versions have.
    #[derive(Deserialize)]
    struct Gist {
        protocol: u32,
    }
    let other = |protocol: u32| {
        (protocol != PROTOCOL_VERSION)
            .then(|| format!("this server speaks protocol {PROTOCOL_VERSION}, not {protocol}"))
    };
    match read(text) {
        Ok(FromScheduler::Hello { protocol, name }) => other(protocol).map_or(Ok(name), Err),
        Ok(_) => Err("the first frame is not a hello".to_owned()),
        Err(unreadable) => {
            let told = read(text)
                .ok()
                .and_then(|Gist { protocol }| other(protocol));
            Err(told.unwrap_or_else(|| unreadable.to_string()))
        }
    }
}

/// What a scheduler knows of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFacts {
    pub id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    pub state: HostState,
    pub connected: bool,
    pub capacity: Resources,
    pub used: Resources,
    /// Those that it reaches besides its own directory.
    pub datastores: Vec<DatastoreFacts>,
}

/// What a scheduler knows of a datastore that a host reaches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatastoreFacts {
    pub name: DatastoreName,
    /// Hosts that reach the same one say the same.
    pub id: DatastoreId,
    pub capacity_mib: MiB,
    /// By all hosts that reach it.
    pub used_mib: MiB,
}

/// What a scheduler knows of a VM that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingVm {
    pub id: VmId,
    /// The generation a proposal must name.
    pub generation: u64,
    pub resources: Resources,
    /// The one of its host that its disk is to be in.
    pub datastore: DatastoreName,
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheduler_of_another_version_is_told_so_whatever_its_hello_looks_like() {
        let hello = r#"{"frame":"hello","protocol":4,"name":"one"}"#;
        assert_eq!(introduction(hello).unwrap(), "one");
        let later = r#"{"frame":"hello","protocol":5,"name":"one","policies":[]}"#;
        let told = introduction(later).unwrap_err();
        assert_eq!(told, "this server speaks protocol 4, not 5");
        for (text, why) in [
            (r#"{"frame":"heartbeat"}"#, "not a hello"),
            (r#"{"frame":"hello","protocol":4}"#, "missing field `name`"),
            (
                r#"{"frame":"hello","protocol":-1,"name":""}"#,
                "invalid value",
            ),
            ("{}", "unreadable frame"),
            ("GET", "unreadable frame"),
        ] {
            let told = introduction(text).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
