//! What a frame from the server says, as far as this agent understands it.

use serde::Deserialize;
use vimana_protocol::agent::{Command, CommandRef, ToAgent, Work};
use vimana_protocol::dial::LinkError;
use vimana_protocol::frame::{self, Unreadable};

/// A frame that came in.
#[derive(Debug, PartialEq)]
pub enum Arrived {
    Frame(ToAgent),
    /// A command of a later version: all there is to do is to say so.
    Command {
        command: CommandRef,
        claim_epoch: u64,
    },
    /// Of a later version, and nothing to answer.
    Strange,
}

/// What every command has, whatever it is about.
#[derive(Deserialize)]
struct Gist {
    frame: String,
    command: CommandRef,
    #[serde(default)]
    claim_epoch: u64,
}

/// # Errors
/// Where it is not JSON: then it is not a server at the other end.
pub fn read(text: &str) -> Result<Arrived, LinkError> {
    let why = match frame::read(text) {
        Ok(ToAgent::Command(Command {
            command,
            claim_epoch,
            work: Work::Unknown,
            ..
        })) => {
            return Ok(Arrived::Command {
                command,
                claim_epoch,
            });
        }
        Ok(frame) => return Ok(Arrived::Frame(frame)),
        Err(Unreadable::Strange(why)) => why,
        Err(noise @ Unreadable::Noise(_)) => return Err(noise.into()),
    };
    tracing::warn!(
        why,
        "the server sent a frame that this agent does not understand"
    );
    match frame::read(text) {
        Ok(Gist {
            frame,
            command,
            claim_epoch,
        }) if frame == "command" => Ok(Arrived::Command {
            command,
            claim_epoch,
        }),
        Ok(_) | Err(_) => Ok(Arrived::Strange),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vimana_model::{OperationId, VmId};

    use super::*;

    fn reference() -> CommandRef {
        CommandRef {
            operation_id: OperationId::from_parts(1, [1; 10]),
            step: 2,
            undo: true,
            attempt: 3,
        }
    }

    fn command(work: &serde_json::Value) -> String {
        let frame = json!({
            "frame": "command",
            "command": reference(),
            "vm_id": VmId::from_parts(1, [1; 10]),
            "run_epoch": 1,
            "claim_epoch": 7,
            "work": work,
        });
        frame.to_string()
    }

    #[test]
    fn what_is_understood_comes_as_it_is() {
        let known = read(&command(&json!({"work": "kill"}))).unwrap();
        let Arrived::Frame(ToAgent::Command(known)) = known else {
            panic!("{known:?}")
        };
        assert_eq!((known.command, known.work), (reference(), Work::Kill));
    }

    #[test]
    fn a_command_of_a_later_version_is_known_by_its_name() {
        for work in [
            json!({"work": "teleport", "to": "x"}),
            // Known, but with something that cannot be left out.
            json!({"work": "boot", "resources": {"vcpus": "many"}}),
            json!({"work": "prepare", "spec": {"later": true}}),
            json!("kill"),
        ] {
            let told = Arrived::Command {
                command: reference(),
                claim_epoch: 7,
            };
            assert_eq!(read(&command(&work)).unwrap(), told, "{work}");
        }
    }

    #[test]
    fn what_has_no_answer_is_passed_over_and_what_is_no_json_is_not() {
        for frame in [
            json!({"frame": "discard", "vm_id": 5}),
            json!({"frame": 5}),
            json!([1]),
            json!({"frame": "command"}),
        ] {
            assert_eq!(read(&frame.to_string()).unwrap(), Arrived::Strange);
        }
        let unknown = read(r#"{"frame":"teleport"}"#).unwrap();
        assert_eq!(unknown, Arrived::Frame(ToAgent::Unknown));
        for text in ["", "{", "GET / HTTP/1.1"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
