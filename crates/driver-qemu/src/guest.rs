//! The agent inside the guest, QEMU's own (`qemu-ga`): it has the guest's file
//! systems stand still for an instant, so that what is copied of them is as
//! after a clean unmount. A guest without one, or whose agent does not answer
//! in time, is copied as it is.
//!
//! Nothing that a guest says is trusted: answers are short, and waited for only
//! so long.
//!
//! A guest must never stand still for good. `frozen.json` is written before it
//! is asked to, and goes when it has answered that it goes on. As long as there
//! is such a record, whoever watches over the machine asks for that.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{sleep, timeout};
use vimana_driver::{Fault, FaultKind};

use crate::argv::{GUEST_PORT, GUEST_SOCKET};
use crate::host::blocking;
use crate::limits::{FREEZE_TIMEOUT, GUEST_LINE_BYTES, GUEST_TIMEOUT, THAW_EVERY};
use crate::machine::Machine;
use crate::qmp::{QmpError, RunState, connect_in};
use crate::record::{self, Record};

/// What parts an agent's answer from whatever it said before, and ours from
/// whatever it heard before: no text has it.
const DELIMITER: u8 = 0xff;

/// The guest may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frozen {}

impl Record for Frozen {
    const FILE: &'static str = "frozen.json";
}

#[derive(Debug, thiserror::Error)]
enum GuestError {
    #[error("the guest's agent did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("the guest's agent refused `{command}`: {description}")]
    Refused {
        command: &'static str,
        description: String,
    },
    #[error("the guest's agent said something unexpected")]
    Unexpected,
    #[error("the guest's agent cannot be reached: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Qmp(#[from] QmpError),
    #[error("{0}")]
    Record(Fault),
}

/// Does it while the guest's file systems stand still, if its agent makes them:
/// says whether they did all the while.
///
/// However this ends, and if it is dropped, the guest goes on.
pub async fn still<T>(
    machine: &Arc<Machine>,
    dir: &Path,
    act: impl Future<Output = T>,
) -> (T, bool) {
    let frozen = match Standstill::begin(machine, dir).await {
        Ok(frozen) => frozen,
        Err(error) => {
            tracing::info!(dir = %dir.display(), %error, "a guest is copied as it is");
            None
        }
    };
    let done = act.await;
    let Some(frozen) = frozen else {
        return (done, false);
    };
    match frozen.end().await {
        Ok(stood_still) => (done, stood_still),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "a guest may stand still longer than it should");
            (done, false)
        }
    }
}

/// Has the guest go on if it may stand still: as a task, for as long as it
/// takes and the machine lives.
pub fn go_on(machine: &Arc<Machine>, dir: &Path) {
    if dir.join(Frozen::FILE).exists()
        && let Ok(turn) = Arc::clone(&machine.guest).try_lock_owned()
    {
        tokio::spawn(thaw_at_last(Arc::clone(machine), dir.to_owned(), turn));
    }
}

/// Makes certain that the guest does not stand still: for what keeps its memory,
/// which would never go on.
///
/// # Errors
/// [`FaultKind::Cancelled`] where it may, and does not answer now.
pub async fn goes_on(machine: &Arc<Machine>, dir: &Path) -> Result<(), Fault> {
    if !dir.join(Frozen::FILE).exists() {
        return Ok(());
    }
    let waiting = Arc::clone(&machine.guest).lock_owned();
    let _turn = timeout(GUEST_TIMEOUT, waiting).await;
    let thawed = !dir.join(Frozen::FILE).exists() || try_thaw(machine, dir).await.is_ok();
    if thawed {
        return Ok(());
    }
    let message = "the guest's file systems stand still, and its agent does not answer";
    Err(Fault::new(FaultKind::Cancelled, message))
}

/// A guest that was asked to stand still.
struct Standstill {
    machine: Arc<Machine>,
    dir: PathBuf,
    /// Absent once it goes on.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Standstill {
    /// `None` where there is no agent to ask.
    async fn begin(machine: &Arc<Machine>, dir: &Path) -> Result<Option<Self>, GuestError> {
        // Where someone else talks to it, it is one that does not answer.
        let Ok(turn) = Arc::clone(&machine.guest).try_lock_owned() else {
            return Ok(None);
        };
        if !is_heard(machine).await? {
            return Ok(None);
        }
        let mut agent = Agent::reach(dir).await?;
        let place = dir.to_owned();
        let recorded = blocking(move || {
            let written = record::write(&place, &Frozen {});
            written.map_err(|error| Fault::io("recording that the guest stands still", &error))
        });
        recorded.await.map_err(GuestError::Record)?;
        let standstill = Self {
            machine: Arc::clone(machine),
            dir: dir.to_owned(),
            turn: Some(turn),
        };
        let stopped: u64 = agent
            .execute("guest-fsfreeze-freeze", None, FREEZE_TIMEOUT)
            .await?;
        tracing::debug!(stopped, "a guest's file systems stand still");
        Ok(Some(standstill))
    }

    /// Says whether any stood still until now.
    async fn end(mut self) -> Result<bool, GuestError> {
        let thawed = thaw(&self.dir).await?;
        self.turn = None;
        Ok(thawed > 0)
    }
}

impl Drop for Standstill {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            let machine = Arc::clone(&self.machine);
            tokio::spawn(thaw_at_last(machine, std::mem::take(&mut self.dir), turn));
        }
    }
}

async fn thaw_at_last(machine: Arc<Machine>, dir: PathBuf, turn: OwnedMutexGuard<()>) {
    let thawing = async {
        let mut told = false;
        while let Err(error) = try_thaw(&machine, &dir).await {
            if !told {
                tracing::warn!(dir = %dir.display(), %error, "a guest may stand still, and is asked to go on until it does");
                told = true;
            }
            sleep(THAW_EVERY).await;
        }
    };
    tokio::select! {
        () = thawing => {}
        () = machine.gone() => {}
    }
    drop(turn);
}

async fn try_thaw(machine: &Machine, dir: &Path) -> Result<(), GuestError> {
    if is_heard(machine).await? {
        return thaw(dir).await.map(drop);
    }
    Err(GuestError::Io(io::ErrorKind::NotConnected.into()))
}

/// Has it go on; says how many file systems stood still.
async fn thaw(dir: &Path) -> Result<u64, GuestError> {
    let mut agent = Agent::reach(dir).await?;
    let thawed = agent.execute("guest-fsfreeze-thaw", None, FREEZE_TIMEOUT);
    let thawed = match thawed.await {
        Err(refused @ GuestError::Refused { .. }) => {
            let status = agent.execute::<String>("guest-fsfreeze-status", None, GUEST_TIMEOUT);
            match status.await {
                Ok(status) if status == "frozen" => return Err(refused),
                // It may not stop file systems, and so has not.
                Ok(_) | Err(GuestError::Refused { .. }) => 0,
                Err(error) => return Err(error),
            }
        }
        thawed => thawed?,
    };
    let dir = dir.to_owned();
    let erased = blocking(move || {
        let erased = record::erase::<Frozen>(&dir);
        erased.map_err(|error| Fault::io("recording that the guest goes on", &error))
    });
    erased.await.map_err(GuestError::Record)?;
    Ok(thawed)
}

/// Whether a guest that runs listens at its end of the port.
async fn is_heard(machine: &Machine) -> Result<bool, GuestError> {
    let qmp = machine.qmp();
    let runs = qmp.query_status().await? == RunState::Running;
    Ok(runs && qmp.is_port_open(GUEST_PORT).await?)
}

/// A conversation with the agent.
struct Agent {
    stream: BufReader<UnixStream>,
}

/// What it says, line by line.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl Agent {
    async fn reach(dir: &Path) -> Result<Self, GuestError> {
        Self::greet(connect_in(dir, GUEST_SOCKET).await?).await
    }

    /// Agrees with the agent on where the conversation begins.
    async fn greet(stream: UnixStream) -> Result<Self, GuestError> {
        let mut agent = Self {
            stream: BufReader::new(stream),
        };
        // A number that no conversation before had.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let id = now.unwrap_or_default().subsec_nanos();
        let greeting = async {
            agent.stream.write_all(&[DELIMITER]).await?;
            agent
                .say("guest-sync-delimited", Some(json!({"id": id})))
                .await?;
            loop {
                agent.hear_until(DELIMITER).await?;
                if let Ok(said) = agent.answer::<u32>("guest-sync-delimited").await
                    && said == id
                {
                    return Ok(());
                }
            }
        };
        within(GUEST_TIMEOUT, greeting).await?;
        Ok(agent)
    }

    async fn execute<T: DeserializeOwned>(
        &mut self,
        command: &'static str,
        arguments: Option<Value>,
        limit: Duration,
    ) -> Result<T, GuestError> {
        let talk = async {
            self.say(command, arguments).await?;
            self.answer(command).await
        };
        within(limit, talk).await
    }

    async fn say(
        &mut self,
        command: &'static str,
        arguments: Option<Value>,
    ) -> Result<(), GuestError> {
        let mut line = json!({"execute": command});
        if let (Some(arguments), Some(fields)) = (arguments, line.as_object_mut()) {
            fields.insert("arguments".to_owned(), arguments);
        }
        self.stream
            .write_all(format!("{line}\n").as_bytes())
            .await?;
        Ok(())
    }

    async fn answer<T: DeserializeOwned>(
        &mut self,
        command: &'static str,
    ) -> Result<T, GuestError> {
        let line = self.hear_until(b'\n').await?;
        let answer: Answer = parsed(serde_json::from_slice(&line))?;
        match (answer.value, answer.error) {
            (Some(value), _) => parsed(serde_json::from_value(value)),
            (None, Some(refusal)) => Err(GuestError::Refused {
                command,
                // A guest's text comes into our log.
                description: refusal.desc.chars().take(200).collect(),
            }),
            (None, None) => Err(GuestError::Unexpected),
        }
    }

    /// What comes up to that byte, which is the last one.
    async fn hear_until(&mut self, end: u8) -> Result<Vec<u8>, GuestError> {
        let mut heard = Vec::new();
        let mut short = (&mut self.stream).take(GUEST_LINE_BYTES);
        short.read_until(end, &mut heard).await?;
        match heard.last() {
            Some(last) if *last == end => Ok(heard),
            Some(_) => Err(GuestError::Unexpected),
            None => Err(GuestError::Io(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn parsed<T>(read: serde_json::Result<T>) -> Result<T, GuestError> {
    read.map_err(|_| GuestError::Unexpected)
}

async fn within<T>(
    limit: Duration,
    talk: impl Future<Output = Result<T, GuestError>>,
) -> Result<T, GuestError> {
    timeout(limit, talk)
        .await
        .map_err(|_| GuestError::Timeout(limit))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that says `before`, and then answers line by line; `ID` in an
    /// answer is what the greeting said.
    async fn talk(before: &'static [u8], answers: &'static [&'static [u8]]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let mut theirs = BufReader::new(theirs);
            theirs.write_all(before).await.unwrap();
            let mut id = String::new();
            for answer in answers {
                let mut line = Vec::new();
                theirs.read_until(b'\n', &mut line).await.unwrap();
                if line.first() == Some(&DELIMITER) {
                    let said: Value = serde_json::from_slice(&line[1..]).unwrap();
                    id = said["arguments"]["id"].to_string();
                }
                let mut filled = Vec::new();
                for part in answer.split_inclusive(|byte| *byte == b'@') {
                    match part.split_last() {
                        Some((b'@', rest)) => {
                            filled.extend_from_slice(rest);
                            filled.extend_from_slice(id.as_bytes());
                        }
                        _ => filled.extend_from_slice(part),
                    }
                }
                theirs.write_all(&filled).await.unwrap();
            }
            // Silent from then on.
            std::future::pending::<()>().await;
        });
        ours
    }

    #[tokio::test]
    async fn what_it_said_to_someone_else_is_not_taken_for_an_answer() {
        let stream = talk(
            b"{\"return\": 7}\nhalf a li",
            &[
                b"\xff{\"return\": 5000000000}\n\xff{\"return\": @}\n",
                b"{\"return\": 2}\n",
                b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n",
            ],
        );
        let mut agent = Agent::greet(stream.await).await.unwrap();
        let frozen = agent.execute::<u64>("guest-fsfreeze-freeze", None, GUEST_TIMEOUT);
        assert_eq!(frozen.await.unwrap(), 2);
        let refused = agent.execute::<u64>("guest-fsfreeze-thaw", None, GUEST_TIMEOUT);
        assert_eq!(
            refused.await.unwrap_err().to_string(),
            "the guest's agent refused `guest-fsfreeze-thaw`: no"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_silent_is_given_up() {
        let stream = talk(b"", &[]).await;
        let silent = Agent::greet(stream).await.err().unwrap();
        assert!(matches!(silent, GuestError::Timeout(_)), "{silent}");
    }

    #[tokio::test]
    async fn one_that_talks_on_and_on_is_given_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move { while theirs.write_all(&[b'x'; 4096]).await.is_ok() {} });
        let endless = Agent::greet(ours).await.err().unwrap();
        assert!(matches!(endless, GuestError::Unexpected), "{endless}");
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        let stream = talk(b"", &[b"\xff{\"return\": @}\n", b"{\"return\": \"x\"}\n"]);
        let mut agent = Agent::greet(stream.await).await.unwrap();
        let nonsense = agent.execute::<u64>("guest-fsfreeze-freeze", None, GUEST_TIMEOUT);
        assert!(matches!(nonsense.await, Err(GuestError::Unexpected)));
    }
}
