//! The serial console on a terminal or through pipes.

use std::io::{self, IsTerminal, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use vimana_client::{Client, Console as Line};
use vimana_model::{HostId, VmId, VmState};

use crate::args::{Console, Timeout};
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::limits::MAX_QUEUED_INPUT;
use crate::terminal::Changed;
use crate::vm::resolve;
use crate::wait::until_arrived;

/// Ctrl-], as with telnet.
const LEAVE: u8 = 0x1d;
/// How long a machine may be on its way to another host.
const MOVE_SECONDS: u64 = 6 * 3600;
/// No silence lasts this long.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Opens the console and stays until the person leaves, the machine ends, or
/// piped input has been dealt with. It follows the machine to another host.
pub async fn console(args: Console) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    let mut machine = Machine::open(client, id).await?;
    let mut signals = Signals::new().map_err(|error| Failure::Failed(error.to_string()))?;
    if !io::stdin().is_terminal() {
        let linger = Some(Duration::from_secs(args.linger));
        return machine.talk(typed(None), linger, &mut signals).await;
    }
    eprintln!("vimana: connected; Ctrl-] leaves");
    let raw = Changed::raw()
        .map_err(|error| Failure::Failed(format!("cannot set up the terminal: {error}")))?;
    let outcome = machine.talk(typed(Some(LEAVE)), None, &mut signals).await;
    drop(raw);
    eprintln!();
    outcome
}

/// A machine, and its line where it is.
struct Machine {
    client: Client,
    id: VmId,
    host: Option<HostId>,
    line: Line,
}

impl Machine {
    async fn open(client: Client, id: VmId) -> Outcome<Self> {
        let vm = client.vm(id).await?;
        let line = client.console(id).await?;
        Ok(Self {
            client,
            id,
            host: vm.host.map(|host| host.id),
            line,
        })
    }

    /// Whether the line that ended goes on elsewhere, where it is opened anew.
    async fn follow(&mut self) -> Outcome<bool> {
        let mut vm = self.client.vm(self.id).await?;
        if vm.state == VmState::Migrate {
            let timeout = Timeout {
                timeout: MOVE_SECONDS,
            };
            vm = until_arrived(&self.client, self.id, timeout).await?;
        }
        let host = vm.host.map(|host| host.id);
        if vm.state != VmState::Running || host == self.host {
            return Ok(false);
        }
        self.line = self.client.console(self.id).await?;
        self.host = host;
        Ok(true)
    }

    /// Carries bytes both ways. When the input ends, it is over at once, or with
    /// `linger` as soon as the guest has been silent for so long.
    async fn talk(
        &mut self,
        mut input: mpsc::Receiver<Bytes>,
        linger: Option<Duration>,
        signals: &mut Signals,
    ) -> Outcome {
        let silence = tokio::time::sleep(NEVER);
        tokio::pin!(silence);
        let mut ended = false;
        loop {
            let Line { reader, writer } = &mut self.line;
            tokio::select! {
                received = reader.read() => match received {
                    Ok(Some(bytes)) => {
                        let mut out = io::stdout().lock();
                        out.write_all(&bytes)?;
                        out.flush()?;
                        if let (true, Some(linger)) = (ended, linger) {
                            silence.as_mut().reset(Instant::now() + linger);
                        }
                    }
                    ended => match self.follow().await {
                        Ok(true) => {}
                        Ok(false) | Err(_) => return Ok(ended.map(drop)?),
                    },
                },
                typed = input.recv(), if !ended => match (typed, linger) {
                    (Some(bytes), _) => {
                        // A line that has ended is found by reading.
                        let _ = writer.write(bytes).await;
                    }
                    (None, Some(linger)) => {
                        ended = true;
                        silence.as_mut().reset(Instant::now() + linger);
                    }
                    (None, None) => break,
                },
                () = &mut silence => break,
                () = signals.any() => break,
            }
        }
        // It is over either way.
        let _ = self.line.writer.close().await;
        Ok(())
    }
}

/// What is typed or piped in, up to its end or the `leave` key. The thread
/// may stay blocked in its read until the process ends.
fn typed(leave: Option<u8>) -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED_INPUT);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        let mut stdin = io::stdin().lock();
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(read) => buffer.get(..read).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let leaves = leave.and_then(|leave| read.iter().position(|byte| *byte == leave));
            let typed = read.get(..leaves.unwrap_or(read.len())).unwrap_or_default();
            let ends = read.is_empty() || leaves.is_some();
            let piece = Bytes::copy_from_slice(typed);
            if (!piece.is_empty() && sender.blocking_send(piece).is_err()) || ends {
                return;
            }
        }
    });
    receiver
}

/// Signals that end the command, caught so that the terminal is put right.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
