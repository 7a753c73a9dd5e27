//! The disks of a machine that does not run, in a process that has nothing but
//! them: QEMU's storage daemon, for as long as a backup takes, or a move of its own
//! disk to another datastore.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use vimana_driver::{Fault, FaultKind};

use crate::argv;
use crate::host::{Held, Turn};
use crate::limits::{START_POLL, START_TIMEOUT, STORAGE_END_TIMEOUT};
use crate::process::{Identity, Process, last_words};
use crate::qmp::{Qmp, connect_in};
use crate::record::{self, Record};

const DAEMON: &str = "qemu-storage-daemon";
const SOCKET: &str = "storage.sock";
/// What it complains about; the machine's own log stays.
const LOG: &str = "storage.log";

/// A process that has the disks open: an agent that died leaves it behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Storage {
    process: Identity,
}

impl Record for Storage {
    const FILE: &'static str = "storage.json";
}

/// One that runs. Dropped, it is killed: its bitmaps are lost then.
pub struct Daemon {
    pub qmp: Qmp,
    child: Child,
    dir: PathBuf,
}

/// Ends one that an agent left behind when it died, so that the disks are free.
/// Blocks.
pub fn end_left_behind(dir: &Path) -> io::Result<Option<Process>> {
    let left = record::read::<Storage>(dir)?;
    let process = left.and_then(|storage| Process::find(&storage.process));
    if let Some(process) = &process {
        process.kill();
    }
    Ok(process)
}

/// It has ended: nothing tells of it any more. Blocks.
pub fn forget(dir: &Path) -> io::Result<()> {
    record::erase::<Storage>(dir)?;
    record::remove_file(&dir.join(SOCKET))?;
    record::remove_file(&dir.join(LOG))
}

/// Opens the machine's disks.
pub async fn start(turn: &Turn, held: &Held) -> Result<Daemon, Fault> {
    let dir = turn.dir();
    record::remove_file(&dir.join(SOCKET)).map_err(unstarted)?;
    let spec = &held.record.spec;
    let disk = argv::disk(&held.record.image, spec.image.format);
    let volumes = turn.host.volumes.of(turn.vm.id).into_iter();
    let nodes: Vec<Value> = std::iter::once(disk)
        .chain(volumes.map(|plug| plug.node()))
        .collect();
    let mut command = Command::new(DAEMON);
    command
        .arg("--chardev")
        .arg(format!("socket,id=qmp,path={SOCKET},server=on,wait=off"))
        .args(["--monitor", "chardev=qmp"])
        .current_dir(&dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    for node in nodes {
        command.arg("--blockdev").arg(node.to_string());
    }
    let log = std::fs::File::create(dir.join(LOG)).map_err(unstarted)?;
    let mut child = command.stderr(log).spawn().map_err(unstarted)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(process) = pid.and_then(Identity::of) {
        record::write(&dir, &Storage { process }).map_err(unstarted)?;
    }
    let stream = connect(&dir, &mut child).await?;
    let greeted = Qmp::connect(stream).await;
    let (qmp, _) = greeted.map_err(|error| {
        let message = format!("opening the disks: {error}");
        Fault::new(FaultKind::Hypervisor, message)
    })?;
    Ok(Daemon { qmp, child, dir })
}

async fn connect(dir: &Path, child: &mut Child) -> Result<UnixStream, Fault> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(stream) = connect_in(dir, SOCKET).await {
            return Ok(stream);
        }
        let ended = child.try_wait().map_err(unstarted)?;
        if ended.is_some() || Instant::now() >= deadline {
            let words = last_words(&dir.join(LOG));
            let words = words.unwrap_or_else(|| "they cannot be opened".to_owned());
            let message = format!("opening the disks: {words}");
            return Err(Fault::new(FaultKind::Hypervisor, message));
        }
        sleep(START_POLL).await;
    }
}

impl Daemon {
    /// Writes everything down and lets go of the disks.
    pub async fn end(mut self) -> Result<(), Fault> {
        let asked = self.qmp.quit().await;
        let waited = timeout(STORAGE_END_TIMEOUT, self.child.wait()).await;
        match (asked, waited) {
            (Ok(()), Ok(Ok(status))) if status.success() => forget(&self.dir).map_err(unstarted),
            _ => {
                let message = "the disks were not closed properly";
                Err(Fault::new(FaultKind::Hypervisor, message))
            }
        }
    }
}

fn unstarted(error: io::Error) -> Fault {
    if error.kind() == io::ErrorKind::NotFound {
        let message = format!("`{DAEMON}` is not installed");
        return Fault::new(FaultKind::Unsupported, message);
    }
    Fault::io("opening the disks", &error)
}
