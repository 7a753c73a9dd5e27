//! A client of QEMU's machine protocol: JSON lines over a unix socket.
//!
//! QMP serves one client at a time; a second one waits in the socket's
//! backlog until the first has hung up. Events that happen while nobody is
//! connected are lost: ask for the status after connecting.

mod command;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};

pub use command::{Bitmap, Migration, Moving, Passage, Port, RunState, Terms};

use crate::limits::{QMP_COMMANDS, QMP_EVENTS, QMP_LINE_BYTES, QMP_TIMEOUT};

#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("QEMU cannot be reached")]
    Closed,
    #[error("QEMU did not answer `{command}` within {} s", within.as_secs())]
    Timeout {
        command: &'static str,
        within: Duration,
    },
    #[error("QEMU refused `{command}`: {description}")]
    Refused {
        command: &'static str,
        description: String,
    },
    #[error("QEMU said something unexpected")]
    Unexpected,
}

impl QmpError {
    /// Whether it is the host's disk that has no room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Refused { description, .. } if description.contains("No space left"))
    }
}

/// A connection; clones share it, and it ends with the last of them.
#[derive(Clone)]
pub struct Qmp {
    commands: mpsc::Sender<Command>,
    /// Weak, so that receivers see the connection's end.
    events: broadcast::WeakSender<String>,
}

struct Command {
    name: &'static str,
    arguments: Option<Value>,
    answer: oneshot::Sender<Result<Value, QmpError>>,
}

/// One line from QEMU; fields that are not needed are skipped.
#[derive(Deserialize)]
struct Message {
    event: Option<String>,
    id: Option<u64>,
    #[serde(rename = "return")]
    value: Option<Value>,
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    desc: String,
}

impl Qmp {
    /// Greets QEMU on a fresh connection. The receiver gets events' names
    /// from the very first on.
    ///
    /// # Errors
    /// Where QEMU is busy with another client, hangs up or talks nonsense.
    pub async fn connect(
        stream: UnixStream,
    ) -> Result<(Self, broadcast::Receiver<String>), QmpError> {
        let (read, write) = stream.into_split();
        let codec = LinesCodec::new_with_max_length(QMP_LINE_BYTES);
        let mut lines = FramedRead::new(read, codec);
        let greeting = timeout(QMP_TIMEOUT, lines.next()).await;
        let greeting = greeting.map_err(|_| QmpError::Timeout {
            command: "greeting",
            within: QMP_TIMEOUT,
        })?;
        let greeting: Value = parse(&greeting.ok_or(QmpError::Closed)?)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Unexpected);
        }
        let (commands, queue) = mpsc::channel(QMP_COMMANDS);
        let (events, first) = broadcast::channel(QMP_EVENTS);
        let weak = events.downgrade();
        tokio::spawn(async move {
            let mut session = Session {
                write,
                events,
                pending: HashMap::new(),
                last_id: 0,
            };
            if let Err(error) = session.run(lines, queue).await {
                tracing::debug!(%error, "a QMP connection ended");
            }
        });
        let qmp = Self {
            commands,
            events: weak,
        };
        qmp.execute("qmp_capabilities", None).await?;
        Ok((qmp, first))
    }

    /// A connection that is closed already, for a QEMU that does not answer.
    #[must_use]
    pub fn closed() -> (Self, broadcast::Receiver<String>) {
        let (commands, _) = mpsc::channel(1);
        let (events, none) = broadcast::channel(1);
        let events = events.downgrade();
        (Self { commands, events }, none)
    }

    /// A new receiver of events' names; `None` once the connection has ended.
    #[must_use]
    pub fn events(&self) -> Option<broadcast::Receiver<String>> {
        Some(self.events.upgrade()?.subscribe())
    }

    async fn execute(
        &self,
        name: &'static str,
        arguments: Option<Value>,
    ) -> Result<Value, QmpError> {
        self.execute_within(QMP_TIMEOUT, name, arguments).await
    }

    async fn execute_within(
        &self,
        within: Duration,
        name: &'static str,
        arguments: Option<Value>,
    ) -> Result<Value, QmpError> {
        let (answer, reply) = oneshot::channel();
        let talk = async {
            let command = Command {
                name,
                arguments,
                answer,
            };
            let sent = self.commands.send(command).await;
            sent.map_err(|_| QmpError::Closed)?;
            reply.await.map_err(|_| QmpError::Closed)?
        };
        let timed_out = |_| QmpError::Timeout {
            command: name,
            within,
        };
        timeout(within, talk).await.map_err(timed_out)?
    }
}

/// The task that owns the socket. Dropping it answers what is pending.
struct Session {
    write: OwnedWriteHalf,
    events: broadcast::Sender<String>,
    pending: HashMap<u64, Command>,
    last_id: u64,
}

impl Session {
    async fn run(
        &mut self,
        mut lines: FramedRead<OwnedReadHalf, LinesCodec>,
        mut queue: mpsc::Receiver<Command>,
    ) -> Result<(), QmpError> {
        loop {
            tokio::select! {
                line = lines.next() => match line {
                    Some(line) => self.hear(parse(&line)?),
                    None => return Err(QmpError::Closed),
                },
                command = queue.recv() => match command {
                    Some(command) => self.say(command).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn say(&mut self, command: Command) -> Result<(), QmpError> {
        self.last_id += 1;
        let mut line = json!({"execute": command.name, "id": self.last_id});
        if let (Some(arguments), Some(fields)) = (&command.arguments, line.as_object_mut()) {
            fields.insert("arguments".to_owned(), arguments.clone());
        }
        let line = format!("{line}\n");
        self.pending.insert(self.last_id, command);
        let sent = self.write.write_all(line.as_bytes()).await;
        sent.map_err(|_| QmpError::Closed)
    }

    fn hear(&mut self, message: Message) {
        if let Some(event) = message.event {
            let _ = self.events.send(event);
            return;
        }
        let Some(command) = message.id.and_then(|id| self.pending.remove(&id)) else {
            return;
        };
        let result = match (message.value, message.error) {
            (Some(value), _) => Ok(value),
            (None, Some(error)) => Err(QmpError::Refused {
                command: command.name,
                description: error.desc,
            }),
            (None, None) => Err(QmpError::Unexpected),
        };
        // Whoever asked may have given up.
        let _ = command.answer.send(result);
    }
}

fn parse<T: for<'a> Deserialize<'a>>(
    line: &Result<String, LinesCodecError>,
) -> Result<T, QmpError> {
    let line = line.as_ref().map_err(|_| QmpError::Closed)?;
    serde_json::from_str(line).map_err(|_| QmpError::Unexpected)
}

/// Connects to a socket in `dir`, however long the directory's path is: a
/// socket's own path has only 107 bytes.
///
/// # Errors
/// From opening the directory and from connecting.
pub async fn connect_in(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let dir = File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd())).await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

    use super::*;

    /// A QEMU that answers each command's line with a text.
    async fn fake(answers: &'static [&'static str]) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            write.write_all(b"{\"QMP\": {}}\r\n").await.unwrap();
            let mut lines = BufReader::new(read).lines();
            for answer in answers {
                lines.next_line().await.unwrap().unwrap();
                write.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        ours
    }

    #[tokio::test]
    async fn commands_get_their_own_answers_and_events_come_through() {
        let stream = fake(&[
            "{\"return\": {}, \"id\": 1}\r\n",
            "{\"event\": \"STOP\", \"data\": {}}\r\n{\"return\": {\"status\": \"io-error\", \"running\": false}, \"id\": 2}\r\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 3}\r\n",
        ])
        .await;
        let (qmp, mut events) = Qmp::connect(stream).await.unwrap();
        assert_eq!(qmp.query_status().await.unwrap(), RunState::IoError);
        assert_eq!(events.recv().await.unwrap(), "STOP");
        let refused = qmp.cont().await.unwrap_err().to_string();
        assert_eq!(refused, "QEMU refused `cont`: no");
        assert!(matches!(qmp.cont().await, Err(QmpError::Closed)));
        assert!(events.recv().await.is_err(), "the end is seen");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_times_out() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let silent = Qmp::connect(ours).await.err().unwrap();
        assert!(matches!(silent, QmpError::Timeout { .. }));
    }

    #[tokio::test]
    async fn nonsense_and_closed_connections_are_errors() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"hello\n").await.unwrap();
        let nonsense = Qmp::connect(ours).await.err().unwrap();
        assert!(matches!(nonsense, QmpError::Unexpected));
        let (qmp, _) = Qmp::closed();
        assert!(matches!(qmp.cont().await, Err(QmpError::Closed)));
        qmp.quit().await.unwrap();
    }

    #[tokio::test]
    async fn long_directories_can_be_connected_to() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        std::fs::create_dir(&long).unwrap();
        assert!(connect_in(&long, "s").await.is_err());
        let here = File::open(&long).unwrap();
        let path = format!("/proc/self/fd/{}/s", here.as_raw_fd());
        let _listener = tokio::net::UnixListener::bind(path).unwrap();
        connect_in(&long, "s").await.unwrap();
    }
}
