//! Server and agent.
//!
//! `GET /agent/v1/session` is the control connection, `GET
//! /agent/v1/console/{console_id}` carries one viewer's serial line as binary
//! frames, `GET /agent/v1/images/{image_id}` gives an image's bytes. All three
//! want `Authorization: Bearer` with the agents' secret.

use serde::{Deserialize, Serialize};
use vimana_driver::{Capabilities, Fault, IncarnationSpec, Observed};
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::Resources;
use vimana_model::{ConsoleId, HostId, OperationId, VmId};

/// The version this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// Agent to server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromAgent {
    /// First frame: who it is and everything it holds.
    Hello(Hello),
    /// A command ended.
    Done {
        command: CommandRef,
        outcome: Outcome,
    },
    /// A machine's power state changed.
    Observed(Observed),
    /// Nothing happened, all is well.
    Heartbeat,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    pub protocol: u32,
    pub agent_version: String,
    pub host_id: HostId,
    pub name: HostName,
    pub zone: ZoneName,
    pub capabilities: Capabilities,
    pub capacity: Resources,
    pub inventory: Vec<Observed>,
}

/// Which step of which operation a command carries out; the same step sent
/// twice is one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRef {
    pub operation_id: OperationId,
    /// Index of the step in its operation.
    pub step: u32,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    Ok {
        /// Worth telling the owner: "the guest did not react; it was switched off".
        note: Option<String>,
    },
    Fault {
        fault: Fault,
    },
}

/// Server to agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToAgent {
    /// Answer to [`FromAgent::Hello`]: the session is open.
    Welcome {
        protocol: u32,
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
    Heartbeat,
}

/// Something to do. Commands for one VM are carried out one after another,
/// except that `Kill` and `Clean` overtake and cancel what runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    pub command: CommandRef,
    pub vm_id: VmId,
    pub run_epoch: u64,
    pub work: Work,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Fetch the image if it is not in the cache, then make disk and seed.
    Prepare {
        spec: Box<IncarnationSpec>,
    },
    Boot,
    Shutdown {
        grace_ms: u64,
    },
    Kill,
    Clean,
}
