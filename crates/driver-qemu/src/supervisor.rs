//! The task that watches over a machine until its end is on record.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use vimana_driver::{Fault, Power, SerialHub};

use crate::argv::{GUEST_SOCKET, QMP_SOCKET, SERIAL_SOCKET};
use crate::guest::Frozen;
use crate::host::{Host, Vm, blocking};
use crate::limits::{
    ADOPT_TIMEOUT, IO_ERROR_RETRY, LOG_TRIM_EVERY, MIGRATION_POLL, RECONNECT_EVERY,
};
use crate::machine::{self, Intent, Machine};
use crate::migration::{Journey, Leaving, receive};
use crate::process::{self, Process};
use crate::qmp::{Qmp, QmpError, RunState, connect_in};
use crate::record::{self, Ended, Record as _, Restarting, Started};

pub struct Supervisor {
    pub host: Arc<Host>,
    pub vm: Arc<Vm>,
    pub dir: PathBuf,
    pub machine: Arc<Machine>,
    pub child: Option<Child>,
    /// Known before the process ends.
    pub end: Option<Power>,
    /// When to continue a machine that stopped for lack of disk space.
    pub retry_at: Option<Instant>,
    /// See [`machine::Parts::restart_until`].
    pub restart_until: Option<Instant>,
}

/// The connection to QEMU as the supervisor has it.
enum Link {
    Up(broadcast::Receiver<String>),
    /// QEMU hung up or did not answer.
    Down {
        next_try: Instant,
        tries: u32,
    },
}

impl Supervisor {
    pub async fn run(
        mut self,
        events: broadcast::Receiver<String>,
        pump: Option<AbortOnDropHandle<()>>,
    ) {
        let closing = self.host.closing.clone();
        let machine = Arc::clone(&self.machine);
        let mut link = Link::Up(events);
        let mut trim = tokio::time::interval(LOG_TRIM_EVERY);
        trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whatever happened before we listened.
        self.look().await;
        let reason = loop {
            let retry_at = self.retry_at;
            tokio::select! {
                () = closing.cancelled() => return,
                reason = exit(self.child.as_mut(), &machine.process) => break reason,
                () = heard(&mut link, &machine, &self.dir) => self.look().await,
                () = machine.look.notified() => self.look().await,
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    self.retry_at = None;
                    self.retry().await;
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
        let machine = Arc::clone(&self.machine);
        let Some(_motion) = machine.try_motion() else {
            return; // whoever moves the guest lets us look afterwards
        };
        let qmp = machine.qmp();
        let Ok(state) = qmp.query_status().await else {
            return; // the process is ending, or does not talk
        };
        let leaves = match self.vm.held().and_then(|held| held.journey) {
            Some(Journey::Arriving(_)) => {
                receive::look(&qmp, state).await;
                return;
            }
            Some(Journey::Leaving(_)) => true,
            None => false,
        };
        match state {
            // Whoever sends it, or calls that off, moves it.
            RunState::Paused
            | RunState::Postmigrate
            | RunState::FinishMigrate
            | RunState::Prelaunch
                if leaves => {}
            RunState::Shutdown if self.is_restarting() => {
                self.did("restarted", machine::restart(&machine).await);
            }
            RunState::Shutdown => {
                self.end = Some(Power::Off);
                machine.end_process().await;
            }
            RunState::InternalError => {
                let reason = "the accelerator met an internal error".to_owned();
                self.end = Some(Power::Crashed { reason });
                machine.end_process().await;
            }
            RunState::IoError => {
                if self.retry_at.is_none() {
                    tracing::warn!(vm = %self.vm.id, "the machine waits for disk space");
                }
                self.retry_at = Some(Instant::now() + IO_ERROR_RETRY);
            }
            // Stopped for a save that failed, or reset while it stood still;
            // nobody works on it any more.
            RunState::Paused | RunState::Postmigrate => {
                self.did("continued", machine::run_on(&qmp).await);
            }
            // Whoever wanted it to run on gave up.
            RunState::FinishMigrate => self.retry_at = Some(Instant::now() + MIGRATION_POLL),
            RunState::Prelaunch => self.did("continued", qmp.cont().await),
            RunState::Running | RunState::Inmigrate | RunState::Other => {}
        }
    }

    fn is_restarting(&self) -> bool {
        let aftermath = self.restart_until.is_some_and(|end| Instant::now() < end);
        aftermath || self.machine.is_restarting()
    }

    async fn retry(&mut self) {
        if let Some(_motion) = self.machine.try_motion()
            && self.may_continue().await
        {
            self.did("continued", self.machine.qmp().cont().await);
        }
        // It may not have done.
        self.look().await;
    }

    /// One that is between two hosts is continued only where all that stopped it is
    /// that there was no room.
    async fn may_continue(&self) -> bool {
        match self.vm.held().and_then(|held| held.journey) {
            None => true,
            Some(Journey::Arriving(_)) => false,
            Some(Journey::Leaving(_)) => {
                let state = self.machine.qmp().query_status().await;
                matches!(state, Ok(RunState::IoError))
            }
        }
    }

    fn did(&self, what: &str, result: Result<(), QmpError>) {
        if let Err(error) = result {
            tracing::warn!(vm = %self.vm.id, %error, "the machine cannot be {what}");
        }
    }

    /// Records the end, then tells.
    async fn bury(self, reason: String) {
        let _ending = self.machine.ending.lock().await;
        let intent = self.machine.intent();
        let power = match (self.end, intent) {
            (Some(end), _) => end,
            (None, Intent::Saved) => Power::Saved,
            (None, Intent::Stop) => Power::Off,
            (None, Intent::None) => Power::Crashed { reason },
        };
        let stopped = intent == Intent::Stop;
        let Some(held) = self.vm.held() else {
            return;
        };
        let ended = Ended {
            run_epoch: held.record.spec.run_epoch,
            power: power.clone(),
            stopped,
        };
        let dir = self.dir.clone();
        let recorded = blocking(move || {
            // A saved memory has its own record.
            let recorded = if ended.power == Power::Saved {
                record_no_process(&dir)
            } else {
                record_end(&dir, &ended)
            };
            recorded.map_err(|error| Fault::io("recording the end", &error))
        });
        if let Err(error) = recorded.await {
            // It is found out again after the agent's next start.
            tracing::error!(vm = %self.vm.id, %error, "a machine's end is not recorded");
        }
        tracing::info!(vm = %self.vm.id, ?power, "the machine ended");
        self.machine.serial.close();
        self.vm.change(&self.host, |held| {
            held.power = power;
            held.stopped = stopped;
            held.machine = None;
            // What never ran here is no more than a part of a machine for good.
            if !held.is_arriving() {
                held.journey = None;
            }
        });
        self.machine.set_gone();
    }
}

/// Replaces the record of a process by the record of its end. Blocks.
pub fn record_end(dir: &Path, ended: &Ended) -> io::Result<()> {
    record::write(dir, ended)?;
    record_no_process(dir)
}

/// Nothing runs any more. Blocks.
pub fn record_no_process(dir: &Path) -> io::Result<()> {
    let sockets = [QMP_SOCKET, SERIAL_SOCKET, GUEST_SOCKET];
    let records = [Restarting::FILE, Frozen::FILE, Leaving::FILE];
    for name in sockets.into_iter().chain(records) {
        record::remove_file(&dir.join(name))?;
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

/// Returns when the machine has to be looked at. May be dropped at any time.
async fn heard(link: &mut Link, machine: &Machine, dir: &Path) {
    loop {
        match link {
            Link::Up(events) => match events.recv().await {
                Ok(event) if event == "STOP" || event == "MIGRATION" => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return,
                Err(RecvError::Closed) => {
                    *link = Link::Down {
                        next_try: Instant::now(),
                        tries: 0,
                    }
                }
            },
            Link::Down { next_try, tries } => {
                sleep_until(*next_try).await;
                match timeout(ADOPT_TIMEOUT, reconnect(dir)).await {
                    Ok(Ok((qmp, events))) => {
                        machine.set_qmp(qmp);
                        *link = Link::Up(events);
                        return;
                    }
                    // The machine runs all the same: its process is watched
                    // in another way, and what needs QMP fails and says so.
                    Ok(Err(_)) | Err(_) => {
                        *next_try = Instant::now() + RECONNECT_EVERY;
                        *tries = tries.saturating_add(1);
                        // At the first try QEMU may just be ending.
                        if *tries == 2 {
                            tracing::error!(dir = %dir.display(), "a QEMU process lives but cannot be reached");
                        }
                    }
                }
            }
        }
    }
}

/// A new connection to a QEMU that lives.
pub async fn reconnect(dir: &Path) -> Result<(Qmp, broadcast::Receiver<String>), QmpError> {
    let stream = connect_in(dir, QMP_SOCKET).await;
    Qmp::connect(stream.map_err(|_| QmpError::Closed)?).await
}

/// Carries bytes between QEMU's end of the serial line and the viewers. The
/// guest never waits for a viewer.
pub async fn pump(line: UnixStream, hub: Arc<SerialHub>, mut keys: mpsc::Receiver<Bytes>) {
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

#[cfg(test)]
mod tests {
    use vimana_driver::conformance::{guest_answers, new_vm, type_text};
    use vimana_driver::{HostDriver as _, ImageRef, IncarnationSpec, Seed};
    use vimana_model::ImageId;
    use vimana_model::image::ImageFormat;
    use vimana_model::name::DatastoreName;
    use vimana_model::unit::{MiB, Resources};

    use super::*;
    use crate::{AcceleratorSetting, OFF, QemuConfig, QemuDriver, boot_sector};

    /// Runs the boot sector in `dir`.
    async fn run(dir: &Path) -> (QemuDriver, IncarnationSpec) {
        let image = dir.join("image");
        std::fs::write(&image, boot_sector()).unwrap();
        let mut config = QemuConfig::new(dir.join("vms"));
        config.accelerator = AcceleratorSetting::Tcg;
        config.disk_reserve = MiB(0);
        let driver = QemuDriver::open(config).await.unwrap();
        let spec = IncarnationSpec {
            vm_id: new_vm(),
            run_epoch: 1,
            resources: Resources {
                vcpus: 1,
                memory_mib: MiB(32),
                disk_mib: MiB(1),
            },
            datastore: DatastoreName::local(),
            image: ImageRef {
                id: ImageId::from_parts(1, [0; 10]),
                format: ImageFormat::Raw,
                size_bytes: 512,
                sha256: String::new(),
            },
            seed: Seed {
                host_name: "web-1".to_owned(),
                ssh_key: None,
                user_data: None,
            },
        };
        driver.prepare(&spec, &image).await.unwrap();
        driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
        guest_answers(&driver, spec.vm_id).await;
        (driver, spec)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_moves_a_guest_whose_memory_is_saved() {
        let dir = tempfile::tempdir().unwrap();
        let (driver, spec) = run(dir.path()).await;
        let vm = driver.host.known(spec.vm_id).unwrap();
        let machine = vm.held().unwrap().machine.unwrap();
        // As between the record of the memory and the end of the process.
        machine.qmp().stop().await.unwrap();
        // The supervisor may just be looking at it.
        while machine.try_motion().is_none() {
            tokio::task::yield_now().await;
        }
        machine.intend(Intent::Saved);
        machine.look.notify_one();
        assert!(machine.try_motion().is_none());
        let fault = driver.reset(spec.vm_id, 1).await.unwrap_err();
        assert_eq!(fault.message, "the machine does not run");
        driver.kill(spec.vm_id, 1).await.unwrap();
        let held = vm.held().unwrap();
        assert_eq!((held.power, held.stopped), (Power::Saved, false));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn broken_connection_to_a_living_qemu_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (driver, spec) = run(dir.path()).await;
        let vm = driver.host.known(spec.vm_id).unwrap();
        let machine = vm.held().unwrap().machine.unwrap();
        // The connection ends with its last user.
        machine.set_qmp(Qmp::closed().0);
        let again = async {
            while machine.qmp().query_status().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), again).await.unwrap();
        // The guest's end comes through it.
        let mut changes = driver.subscribe();
        type_text(&driver, spec.vm_id, &[OFF]).await;
        let change = timeout(Duration::from_secs(20), changes.recv()).await;
        assert_eq!(change.unwrap().unwrap().power, Power::Off);
    }
}
