//! The serial console on a terminal or through pipes.

use std::io::{self, IsTerminal, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use vimana_client::Console as Line;

use crate::args::Console;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::limits::MAX_QUEUED_INPUT;
use crate::terminal::Changed;
use crate::vm::resolve;

/// Ctrl-], as with telnet.
const LEAVE: u8 = 0x1d;
/// No silence lasts this long.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Opens the console and stays until the person leaves, the machine ends, or
/// piped input has been dealt with.
pub async fn console(args: Console) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    let line = client.console(id).await?;
    let mut signals = Signals::new().map_err(|error| Failure::Failed(error.to_string()))?;
    if !io::stdin().is_terminal() {
        let linger = Some(Duration::from_secs(args.linger));
        return talk(line, typed(None), linger, &mut signals).await;
    }
    eprintln!("vimana: connected; Ctrl-] leaves");
    let raw = Changed::raw()
        .map_err(|error| Failure::Failed(format!("cannot set up the terminal: {error}")))?;
    let outcome = talk(line, typed(Some(LEAVE)), None, &mut signals).await;
    drop(raw);
    eprintln!();
    outcome
}

/// Carries bytes both ways. When the input ends, it is over at once, or with
/// `linger` as soon as the guest has been silent for so long.
async fn talk(
    line: Line,
    mut input: mpsc::Receiver<Bytes>,
    linger: Option<Duration>,
    signals: &mut Signals,
) -> Outcome {
    let Line {
        mut reader,
        mut writer,
    } = line;
    let silence = tokio::time::sleep(NEVER);
    tokio::pin!(silence);
    let mut ended = false;
    loop {
        tokio::select! {
            received = reader.read() => match received? {
                Some(bytes) => {
                    let mut out = io::stdout().lock();
                    out.write_all(&bytes)?;
                    out.flush()?;
                    if let (true, Some(linger)) = (ended, linger) {
                        silence.as_mut().reset(Instant::now() + linger);
                    }
                }
                None => return Ok(()),
            },
            typed = input.recv(), if !ended => match (typed, linger) {
                (Some(bytes), _) => writer.write(bytes).await?,
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
    let _ = writer.close().await;
    Ok(())
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
