//! Server and agent.
//!
//! All of it on the peer listener, with the host's certificate:
//! `GET /agent/v1/session` is the control connection, `GET
//! /agent/v1/console/{console_id}` carries one viewer's serial line as binary
//! frames, `GET /agent/v1/images/{image_id}` gives an image's bytes, `PUT
//! /agent/v1/images/{image_id}/{operation_id}` takes those of one that is made of
//! a volume (410 where nobody wants them any more), `PUT` and `GET
//! /agent/v1/saved/{vm_id}/{run_epoch}/{part}` are about a saved machine's, `GET
//! …/{part}/received` says what is here of one whose sending broke off, and `PUT
//! /agent/v1/backups/{backup_id}/{disk}` takes those of a backup.

mod capacity;

use serde::{Deserialize, Deserializer, Serialize};
use vimana_driver::{
    Capabilities, DiskPlan, Endpoint, Fault, IncarnationSpec, Observed, ObservedSnapshot,
    ObservedVolume, SavedMachine, Sending, VolumeSpec, text,
};
use vimana_model::backup::{DiskId, MadeBackup};
use vimana_model::migration::Sent;
use vimana_model::name::{DatastoreName, HostName, ZoneName};
use vimana_model::operation::Progress;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{
    BackupId, ConsoleId, DatastoreId, HostId, ImageId, OperationId, SnapshotId, VmId, VolumeId,
};

pub use capacity::Capacity;

use crate::frame::{Unreadable, read};

/// The oldest and the newest version this build speaks.
pub const PROTOCOL_VERSIONS: Versions = Versions { min: 3, max: 3 };

/// Where in a saved machine's part the body of a `PUT` begins, and in the 409
/// that refuses it where it should have: bytes, in decimal digits.
pub const UPLOAD_OFFSET_HEADER: &str = "upload-offset";

/// What the server has of a saved machine's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceivedPart {
    /// How many bytes; a `PUT` may go on after them.
    pub size_bytes: u64,
    /// Of these bytes: hexadecimal SHA-256.
    pub sha256: String,
    /// It was received as a whole: there is nothing to go on with.
    pub whole: bool,
}

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub min: u32,
    pub max: u32,
}

impl Versions {
    /// The highest version both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u32> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

/// The version that the server speaks with an agent that speaks these.
///
/// # Errors
/// Why there is none, for the agent's log.
pub fn negotiate(agent: Versions) -> Result<u32, String> {
    let (Versions { min, max }, ours) = (agent, PROTOCOL_VERSIONS);
    ours.common(agent).ok_or_else(|| {
        format!(
            "the agent speaks protocol {min} to {max}, this server {} to {}",
            ours.min, ours.max
        )
    })
}

/// Agent to server.
///
/// Frames of this direction and the other may gain fields, kinds and words with
/// a version: unknown fields are ignored, an unknown kind is
/// [`FromAgent::Unknown`], and every type below says what it makes of a word it
/// does not know. What is still unreadable costs that frame alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum FromAgent {
    /// First frame: who it is and everything it holds.
    Hello(Hello),
    /// Second frame: the session's number is on the agent's disk.
    Ready { session_number: u64 },
    /// A command ended.
    Done {
        command: CommandRef,
        /// That of the command as it came last.
        claim_epoch: u64,
        #[serde(deserialize_with = "outcome")]
        outcome: Outcome,
    },
    /// How far a command is; at most twice a second for each.
    Progress {
        command: CommandRef,
        progress: Progress,
    },
    /// A machine's power state changed.
    Observed(Observed),
    /// Answer to [`ToAgent::TakeInventory`].
    Inventory {
        inventory: Vec<Observed>,
        /// Absent where the agent is older.
        #[serde(default)]
        disks: Option<Disks>,
    },
    /// Answer to [`ToAgent::Discard`]: nothing of it is left.
    Discarded { vm_id: VmId },
    /// Answer to [`ToAgent::RemoveVolume`]: nothing of it is left.
    VolumeRemoved { volume_id: VolumeId },
    /// [`ToAgent::SendVolume`] came to nothing.
    VolumeNotSent { order: VolumeOrder, fault: Fault },
    /// Nothing happened, all is well.
    Heartbeat,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// What a host holds beside machines and their root disks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disks {
    pub volumes: Vec<ObservedVolume>,
    pub snapshots: Vec<ObservedSnapshot>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: Versions,
    #[serde(deserialize_with = "text::deserialize")]
    pub agent_version: String,
    pub host_id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    pub capabilities: Capabilities,
    pub capacity: Capacity,
    /// Where it can keep volumes, besides its own directory.
    #[serde(default)]
    pub datastores: Vec<HostDatastore>,
    pub inventory: Vec<Observed>,
    /// The number of the last session this host had; 0 before the first. Who
    /// names another one is another machine with a copy of the certificate.
    pub session_number: u64,
    /// Machines its watchdog stopped since the last session; 0 as a rule.
    #[serde(default)]
    pub fenced: u32,
}

/// A datastore that a host reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDatastore {
    pub name: DatastoreName,
    /// Of the directory, whoever reaches it.
    pub id: DatastoreId,
    pub capacity_mib: MiB,
}

impl Hello {
    /// The first frame of a session.
    ///
    /// # Errors
    /// Why there can be no session, for the agent's log. An agent of another
    /// version is told so, whatever else its hello looks like.
    pub fn read(text: &str) -> Result<Self, String> {
        /// What the hellos of all versions have.
        #[derive(Deserialize)]
        struct Gist {
            protocol: Versions,
        }
        match read(text) {
            Ok(FromAgent::Hello(hello)) => Ok(hello),
            Ok(_) => Err("the first frame is not a hello".to_owned()),
            Err(unreadable) => {
                if let Unreadable::Strange(_) = unreadable
                    && let Ok(Gist { protocol }) = read(text)
                {
                    negotiate(protocol)?;
                }
                Err(unreadable.to_string())
            }
        }
    }
}

/// Which try of which step of which operation a command carries out; the same
/// sent twice is one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandRef {
    pub operation_id: OperationId,
    /// Index of the step in its operation.
    pub step: u32,
    /// The step is being taken back.
    pub undo: bool,
    /// Grows with every try.
    pub attempt: u32,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Ok {
        /// Worth telling the owner: "the guest did not react; it was switched off".
        #[serde(default, deserialize_with = "text::deserialize_option")]
        note: Option<String>,
        /// After an upload: what is in the datastore now.
        #[serde(default)]
        saved: Option<SavedMachine>,
        /// After a backup: what is in the datastore now.
        #[serde(default)]
        backup: Option<MadeBackup>,
        /// Where the host waits for the machine that it made place for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<Endpoint>,
        /// What sending the machine took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent: Option<Sent>,
        /// Where its guest finds the volume that was attached.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<u8>,
    },
    Fault {
        fault: Fault,
    },
    /// It ended, and how cannot be read: of a later version.
    #[serde(other)]
    Unknown,
}

impl Outcome {
    /// It is done, and there is no more to say.
    pub const DONE: Self = Self::Ok {
        note: None,
        saved: None,
        backup: None,
        endpoint: None,
        sent: None,
        place: None,
    };
}

/// Whatever an outcome looks like, the command has ended.
fn outcome<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Outcome, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or(Outcome::Unknown))
}

/// Server to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case")]
pub enum ToAgent {
    /// Answer to [`FromAgent::Hello`]: the session is open.
    Welcome {
        /// The version both ends speak from now on.
        protocol: u32,
        /// To be on the agent's disk before anything else is sent.
        session_number: u64,
        /// How long the host may run its machines without hearing from the
        /// server again; for ever where absent.
        #[serde(default)]
        lease_ms: Option<u64>,
    },
    /// Answer to [`FromAgent::Hello`]: the session is refused, for this reason.
    Refused {
        reason: String,
    },
    Command(Command),
    /// Dial `/agent/v1/console/{console_id}` and join it to the serial line.
    OpenConsole {
        console_id: ConsoleId,
        vm_id: VmId,
    },
    /// Stop and remove a machine that is not recorded; a person wants it so.
    Discard {
        vm_id: VmId,
        run_epoch: u64,
        /// It is another host's now, or still: only what that does not reach goes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        elsewhere: Option<DiskPlan>,
    },
    /// Remove a volume that is deleted and that no machine has.
    RemoveVolume {
        volume_id: VolumeId,
        /// Where it may be besides the host's own directory: a host that does
        /// not reach one of them cannot say that nothing of it is left.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        datastores: Vec<DatastoreId>,
    },
    /// Send what is on a volume. The server says it again until it has come, or
    /// nobody wants it any more.
    SendVolume(VolumeOrder),
    /// Say once more everything the host holds.
    TakeInventory,
    /// Answers an agent's heartbeat; the lease runs anew from when the agent
    /// sent that.
    Heartbeat {
        #[serde(default)]
        lease_ms: Option<u64>,
    },
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// An image is to be made of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeOrder {
    pub volume_id: VolumeId,
    pub image_id: ImageId,
    /// The image's import; a later one wants a later copy.
    pub operation_id: OperationId,
}

/// Something to do. Commands for one VM are carried out one after another,
/// except that `Kill`, `Clean` and whatever takes a step back overtake and
/// cancel what runs. A command whose `run_epoch` or `claim_epoch` is lower than
/// the highest in the agent's ledger for its VM is refused as superseded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    pub command: CommandRef,
    pub vm_id: VmId,
    pub run_epoch: u64,
    /// Which claim on the operation the server acts under; grows.
    pub claim_epoch: u64,
    pub work: Work,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Fetch the image if it is not in the cache, then make disk and seed.
    Prepare {
        spec: Box<IncarnationSpec>,
    },
    Boot {
        resources: Resources,
    },
    Shutdown {
        grace_ms: u64,
    },
    Kill,
    Clean,
    Save,
    Load,
    /// Copy a machine that does not run to the datastore.
    Upload {
        #[serde(default, skip_serializing_if = "DiskPlan::is_plain")]
        disks: DiskPlan,
    },
    /// Fetch a saved machine, and its image, and take it over.
    Download {
        spec: Box<IncarnationSpec>,
        saved: SavedMachine,
        #[serde(default, skip_serializing_if = "DiskPlan::is_plain")]
        disks: DiskPlan,
    },
    Reboot {
        grace_ms: u64,
    },
    Reset,
    Resize {
        resources: Resources,
    },
    Snapshot {
        snapshot_id: SnapshotId,
        memory: bool,
    },
    /// Of one volume alone: a kind of its own, which an older agent does not
    /// take for one of all disks.
    SnapshotVolume {
        snapshot_id: SnapshotId,
        volume_id: VolumeId,
    },
    Revert {
        snapshot_id: SnapshotId,
    },
    RemoveSnapshot {
        snapshot_id: SnapshotId,
    },
    /// Copy the disks to the datastore, as they are at one instant, or what has
    /// changed of them since another backup.
    Backup {
        backup_id: BackupId,
        #[serde(default)]
        since: Option<BackupId>,
    },
    /// Let go of a backup that does not come to be.
    DropBackup {
        backup_id: BackupId,
    },
    /// Make the volume where it is not there yet, make it as large as it is to
    /// be, and attach it.
    Attach {
        volume: VolumeSpec,
    },
    Detach {
        volume_id: VolumeId,
    },
    Grow {
        volume_id: VolumeId,
        size_mib: MiB,
    },
    /// Bring a disk of the machine to another datastore of the host.
    Move {
        disk: DiskId,
        to: DatastoreName,
    },
    /// Make place for a machine that runs on the host `from`, and wait for it.
    Receive {
        spec: Box<IncarnationSpec>,
        from: HostId,
        #[serde(default, skip_serializing_if = "DiskPlan::is_plain")]
        disks: DiskPlan,
        /// It is to run before all of its memory has come. An agent that does not
        /// know that waits for all of it, and says so in its endpoint.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        post_copy: bool,
    },
    /// Copy the machine to where another host waits for it, until it stands still
    /// on both.
    Send {
        sending: Sending,
    },
    /// The machine runs on here: nothing comes of sending it.
    CallOff,
    /// The other host has the machine, which stands still on both: have the rest of
    /// its memory brought there while it runs.
    Switch,
    /// Let the machine run that was received.
    Run,
    /// Wait for the rest of the memory of a machine that runs.
    Complete,
    /// Stop what is here of a machine that runs elsewhere, or is to, and remove
    /// what no other host reaches.
    Leave {
        #[serde(default, skip_serializing_if = "DiskPlan::is_plain")]
        disks: DiskPlan,
    },
    /// Of a later version; answered with `Unsupported`.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use vimana_driver::FaultKind;

    use super::*;

    #[test]
    fn two_ranges_meet_at_the_highest_common_version() {
        let versions = |min, max| Versions { min, max };
        assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
        assert_eq!(versions(2, 2).common(versions(2, 2)), Some(2));
        assert_eq!(versions(1, 1).common(versions(2, 3)), None);
        assert_eq!(
            versions(1, 3).common(versions(3, 1)),
            None,
            "the wrong way round"
        );
    }

    #[test]
    fn what_a_later_version_adds_is_told_apart_and_not_an_error() {
        let frame = r#"{"frame":"teleport","anything":[1]}"#;
        assert_eq!(
            serde_json::from_str::<ToAgent>(frame).unwrap(),
            ToAgent::Unknown
        );
        assert_eq!(
            serde_json::from_str::<FromAgent>(frame).unwrap(),
            FromAgent::Unknown
        );
        let work = r#"{"work":"teleport","to":"x"}"#;
        assert_eq!(serde_json::from_str::<Work>(work).unwrap(), Work::Unknown);
        let more = r#"{"frame":"heartbeat","mood":"fine"}"#;
        let known = ToAgent::Heartbeat { lease_ms: None };
        assert_eq!(serde_json::from_str::<ToAgent>(more).unwrap(), known);
    }

    /// What becomes of a command that ended like this.
    fn ended(outcome: &Value) -> Outcome {
        let id = OperationId::from_parts(1, [1; 10]);
        let command = json!({ "operation_id": id, "step": 0, "undo": false, "attempt": 1 });
        let frame = json!({
            "frame": "done", "command": command, "claim_epoch": 1, "outcome": outcome,
        });
        let FromAgent::Done { outcome, .. } = serde_json::from_value(frame).unwrap() else {
            panic!("another frame was read");
        };
        outcome
    }

    #[test]
    fn a_command_has_ended_whatever_is_said_of_its_end() {
        let fine = Outcome::DONE;
        assert_eq!(ended(&json!({ "outcome": "ok", "ms": 3 })), fine);
        let fault = json!({ "kind": "too_hot", "message": "95 °C" });
        let hot = Outcome::Fault {
            fault: Fault::new(FaultKind::Host, "95 °C"),
        };
        assert_eq!(ended(&json!({ "outcome": "fault", "fault": fault })), hot);
        let part = json!({ "part": "nvram", "size_bytes": 1, "sha256": "00" });
        let saved = json!({ "run_epoch": 1, "hypervisor": "", "parts": [part] });
        for strange in [
            json!({ "outcome": "postponed", "until": "noon" }),
            json!({ "outcome": "ok", "saved": saved }),
            json!({ "outcome": "fault" }),
            json!("ok"),
            json!(null),
        ] {
            assert_eq!(ended(&strange), Outcome::Unknown, "{strange}");
        }
    }

    #[test]
    fn an_agent_of_another_version_is_told_so_whatever_its_hello_looks_like() {
        let hello = |min, max| {
            let protocol = json!({ "min": min, "max": max, "flavor": "x" });
            let hello = json!({ "frame": "hello", "protocol": protocol, "host": ["other"] });
            Hello::read(&hello.to_string()).unwrap_err()
        };
        let told = hello(7, 9);
        assert_eq!(told, "the agent speaks protocol 7 to 9, this server 3 to 3");
        let told = hello(1, 9);
        assert!(told.contains("missing field `agent_version`"), "{told}");
        let told = Hello::read(r#"{"frame":"heartbeat"}"#).unwrap_err();
        assert_eq!(told, "the first frame is not a hello");
        let told = Hello::read(r#"{"frame":"hello","protocol":-1}"#).unwrap_err();
        assert!(told.contains("unreadable frame"), "{told}");
    }
}
