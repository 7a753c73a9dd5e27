//! A machine that runs: its process, its QMP, its serial line, and the task
//! that watches them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use vimana_driver::{Fault, FaultKind, Power, SerialHub};

use crate::argv::{QMP_SOCKET, SERIAL_SOCKET};
use crate::host::{Host, Vm, blocking};
use crate::limits::{IO_ERROR_RETRY, KILL_TIMEOUT, LOG_TRIM_EVERY, QUIT_TIMEOUT};
use crate::process::{self, Process};
use crate::qmp::{Qmp, RunState};
use crate::record::{self, Ended, Started};

/// A running machine, as calls see it.
pub struct Machine {
    pub qmp: Qmp,
    process: Process,
    pub serial: Arc<SerialHub>,
    /// We ended it; else its end is the guest's doing or a crash.
    stopped: AtomicBool,
    gone: watch::Sender<bool>,
}

/// What a new supervisor takes over.
pub struct Parts {
    pub qmp: Qmp,
    pub events: broadcast::Receiver<String>,
    pub process: Process,
    /// Where we started it ourselves.
    pub child: Option<Child>,
    /// Absent where the socket could not be reached any more.
    pub serial: Option<UnixStream>,
}

impl Machine {
    /// Marks the VM as running and watches over it from now on.
    pub fn supervise(host: &Arc<Host>, vm: &Arc<Vm>, parts: Parts) {
        let Some(mut held) = vm.held() else {
            return;
        };
        let (serial, keys) = SerialHub::new();
        let machine = Arc::new(Self {
            qmp: parts.qmp,
            process: parts.process,
            serial: Arc::clone(&serial),
            stopped: AtomicBool::new(false),
            gone: watch::Sender::new(false),
        });
        held.power = Power::Running;
        held.machine = Some(Arc::clone(&machine));
        held.serial = Some(Arc::clone(&serial));
        let pump = parts
            .serial
            .map(|line| AbortOnDropHandle::new(tokio::spawn(pump(line, serial, keys))));
        let supervisor = Supervisor {
            host: Arc::clone(host),
            vm: Arc::clone(vm),
            dir: host.layout.vm(vm.id),
            run_epoch: held.record.spec.run_epoch,
            machine,
            child: parts.child,
            end: None,
            retry_at: None,
        };
        vm.hold(host, held);
        tokio::spawn(supervisor.run(parts.events, pump));
    }

    /// Ends the machine for good: asks QEMU, then kills the process.
    ///
    /// # Errors
    /// Where the process does not end even so.
    pub async fn stop(&self) -> Result<(), Fault> {
        self.stopped.store(true, Ordering::Relaxed);
        self.end_process().await;
        if timeout(KILL_TIMEOUT, self.gone()).await.is_err() {
            let message = "the QEMU process cannot be ended";
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
        Ok(())
    }

    /// Returns when the end is on record.
    pub async fn gone(&self) {
        // The sender is in `self`: it cannot be dropped meanwhile.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    async fn end_process(&self) {
        let quit = async {
            if self.qmp.quit().await.is_ok() {
                self.process.ended().await;
                return true;
            }
            false
        };
        if !matches!(timeout(QUIT_TIMEOUT, quit).await, Ok(true)) {
            self.process.kill();
        }
    }
}

struct Supervisor {
    host: Arc<Host>,
    vm: Arc<Vm>,
    dir: PathBuf,
    run_epoch: u64,
    machine: Arc<Machine>,
    child: Option<Child>,
    /// Known before the process ends.
    end: Option<Power>,
    /// When to continue a machine that stopped for lack of disk space.
    retry_at: Option<Instant>,
}

impl Supervisor {
    async fn run(
        mut self,
        mut events: broadcast::Receiver<String>,
        pump: Option<AbortOnDropHandle<()>>,
    ) {
        let closing = self.host.closing.clone();
        let mut trim = tokio::time::interval(LOG_TRIM_EVERY);
        trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whatever happened before we listened.
        self.look().await;
        let reason = loop {
            let retry_at = self.retry_at;
            tokio::select! {
                () = closing.cancelled() => return,
                reason = exit(self.child.as_mut(), &self.machine.process) => break reason,
                () = heard(&mut events) => self.look().await,
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    self.retry_at = None;
                    if let Err(error) = self.machine.qmp.cont().await {
                        tracing::warn!(vm = %self.vm.id, %error, "the machine cannot be continued");
                    }
                }
                _ = trim.tick() => {
                    if let Err(error) = process::trim_log(&self.dir) {
                        tracing::warn!(vm = %self.vm.id, %error, "QEMU's log cannot be trimmed");
                    }
                }
            }
        };
        if let Some(pump) = pump {
            // The last output is still in the socket.
            let _ = timeout(Duration::from_millis(500), pump).await;
        }
        self.bury(reason).await;
    }

    /// The machine stopped, or something was missed: why?
    async fn look(&mut self) {
        let Ok(state) = self.machine.qmp.query_status().await else {
            return; // the process is ending, or does not talk
        };
        match state {
            RunState::Shutdown => {
                self.end = Some(Power::Off);
                self.machine.end_process().await;
            }
            RunState::InternalError => {
                let reason = "the accelerator met an internal error".to_owned();
                self.end = Some(Power::Crashed { reason });
                self.machine.end_process().await;
            }
            RunState::IoError => {
                if self.retry_at.is_none() {
                    tracing::warn!(vm = %self.vm.id, "the machine waits for disk space");
                }
                self.retry_at = Some(Instant::now() + IO_ERROR_RETRY);
            }
            RunState::Prelaunch | RunState::Running | RunState::Other => {}
        }
    }

    /// Records the end, then tells.
    async fn bury(self, reason: String) {
        let stopped = self.machine.stopped.load(Ordering::Relaxed);
        let power = match self.end {
            Some(end) => end,
            None if stopped => Power::Off,
            None => Power::Crashed { reason },
        };
        let ended = Ended {
            run_epoch: self.run_epoch,
            power: power.clone(),
            stopped,
        };
        let dir = self.dir.clone();
        let recorded = blocking(move || {
            record_end(&dir, &ended).map_err(|error| Fault::io("recording the end", &error))
        });
        if let Err(error) = recorded.await {
            // It is found out again after the agent's next start.
            tracing::error!(vm = %self.vm.id, %error, "a machine's end is not recorded");
        }
        tracing::info!(vm = %self.vm.id, ?power, "the machine ended");
        self.machine.serial.close();
        if let Some(mut held) = self.vm.held() {
            held.power = power;
            held.stopped = stopped;
            held.machine = None;
            self.vm.hold(&self.host, held);
        }
        self.machine.gone.send_replace(true);
    }
}

/// Replaces the record of a process by the record of its end. Blocks.
pub fn record_end(dir: &std::path::Path, ended: &Ended) -> io::Result<()> {
    record::write(dir, ended)?;
    for socket in [QMP_SOCKET, SERIAL_SOCKET] {
        record::remove_file(&dir.join(socket))?;
    }
    record::erase::<Started>(dir)
}

/// Waits for the process's end; says how it ended where that can be known.
async fn exit(child: Option<&mut Child>, process: &Process) -> String {
    match child {
        Some(child) => match child.wait().await {
            Ok(status) => process::describe(status),
            Err(error) => format!("the QEMU process ended: {error}"),
        },
        None => {
            process.ended().await;
            "the QEMU process ended unexpectedly".to_owned()
        }
    }
}

/// Returns on an event after which the status has to be looked at.
async fn heard(events: &mut broadcast::Receiver<String>) {
    loop {
        match events.recv().await {
            Ok(event) if event == "STOP" => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            // The process is watched in another way, too.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Carries bytes between QEMU's end of the serial line and the viewers. The
/// guest never waits for a viewer.
async fn pump(line: UnixStream, hub: Arc<SerialHub>, mut keys: mpsc::Receiver<Bytes>) {
    let (mut read, mut write) = line.into_split();
    let output = async {
        let mut buffer = BytesMut::with_capacity(4096);
        while matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
            hub.output(&buffer);
            buffer.clear();
        }
    };
    let input = async {
        while let Some(typed) = keys.recv().await {
            if write.write_all(&typed).await.is_err() {
                break;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = output => {}
        () = input => {}
    }
}
