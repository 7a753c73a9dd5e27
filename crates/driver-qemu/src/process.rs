//! A QEMU process: started with an argument list, known by pid and start
//! time, watched and killed through a pidfd so that a reused pid is never hit.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use vimana_model::VmId;

use crate::limits::{LOG_BYTES, REASON_CHARS};

/// QEMU's own messages.
pub const LOG: &str = "qemu.log";

/// Which process it is, beyond reuse of its pid and restarts of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks between the host's start and the process's.
    pub started_ticks: u64,
    /// Random id of the host's own run.
    pub host_boot: String,
}

impl Identity {
    /// The identity of a process that lives now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        Some(Self {
            pid,
            started_ticks: start_time(pid)?,
            host_boot: host_boot()?,
        })
    }
}

/// A living process.
pub struct Process {
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Finds the process again; `None` where it is gone.
    #[must_use]
    pub fn find(identity: &Identity) -> Option<Self> {
        let pid = Pid::from_raw(identity.pid)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Looked at after it was opened: the descriptor is of this process.
        let same = Identity::of(identity.pid).as_ref() == Some(identity);
        #[expect(
            deprecated,
            reason = "sound for an OwnedFd, whose descriptor never changes; its successor is an unsafe function"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE).ok()?;
        same.then_some(Self { fd })
    }

    /// Kills it; fine if it is gone.
    pub fn kill(&self) {
        if let Err(error) = pidfd_send_signal(&self.fd, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, "a QEMU process cannot be killed");
        }
    }

    /// Has what it sends to a place go there at once: QEMU does not ask for that,
    /// and then waits for acknowledgements that come late by 40 ms, while the guest
    /// stands still. Where the host does not let us, it is only slower. Blocks.
    ///
    /// # Errors
    /// Where its descriptors cannot be seen.
    pub fn send_at_once(&self, to: SocketAddr) -> io::Result<()> {
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()))?;
        let pid = about.lines().find_map(|line| line.strip_prefix("Pid:"));
        let pid = pid.ok_or(io::ErrorKind::NotFound)?.trim();
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let entry = entry?;
            let link = fs::read_link(entry.path()).unwrap_or_default();
            if !link.to_string_lossy().starts_with("socket:") {
                continue;
            }
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let socket = pidfd_getfd(&self.fd, number, PidfdGetfdFlags::empty())?;
            let peer = rustix::net::getpeername(&socket).ok().flatten();
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
            if peer == Some(to) {
                rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
            }
        }
        Ok(())
    }

    /// Returns when it has ended, whether or not it was reaped.
    pub async fn ended(&self) {
        // The descriptor becomes readable, and stays so.
        let _ = self.fd.readable().await;
    }
}

/// Clock ticks between the host's start and the process's; `None` where it
/// is gone or only waits to be reaped.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    if matches!(fields.next(), None | Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Random id of this run of the host.
fn host_boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// The QEMU processes that run a VM in its directory: how one is found whose
/// start was interrupted before its pid was recorded.
#[must_use]
pub fn running(vm: VmId, dir: &Path) -> Vec<Identity> {
    let Ok(dir) = dir.canonicalize() else {
        return Vec::new();
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir))
        .filter(|pid| is_named(*pid, vm))
        .filter_map(Identity::of)
        .collect()
}

/// Whether a process was started for a VM: somebody's shell may be in its
/// directory, too.
fn is_named(pid: i32, vm: VmId) -> bool {
    let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let args: Vec<&[u8]> = args.split(|byte| *byte == 0).collect();
    let name = vm.to_string();
    args.array_windows()
        .any(|[option, value]| *option == b"-name" && *value == name.as_bytes())
}

/// What QEMU's C library does with memory that it was given back: buffers of requests,
/// of which 16 of 1 MiB may be under way, are kept and used again. Otherwise each is
/// mapped, touched page by page and unmapped, for which whoever takes a disk by NBD
/// spends more time than for the disk.
const ALLOCATOR: (&str, &str) = (
    "GLIBC_TUNABLES",
    "glibc.malloc.mmap_threshold=4194304:glibc.malloc.trim_threshold=33554432",
);

/// Starts QEMU in a VM's directory. It outlives the agent: it is in no
/// process group of ours, and has none of our descriptors or environment.
///
/// # Errors
/// Where the log cannot be made or the binary cannot be started.
pub fn spawn(qemu: &Path, args: &[String], dir: &Path) -> io::Result<Child> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(dir.join(LOG))?;
    log.set_len(0)?;
    let mut command = std::process::Command::new(qemu);
    command
        .args(args)
        .current_dir(dir)
        .env_clear()
        .envs([ALLOCATOR])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    Command::from(command).spawn()
}

/// Where in `PATH` a binary is; a path is taken as it is.
#[must_use]
pub fn find_binary(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return name.canonicalize().ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// How a process of ours ended, for people.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("the QEMU process was killed by signal {signal}"),
        (None, Some(0)) => "the QEMU process ended without being asked to".to_owned(),
        (None, Some(code)) => format!("the QEMU process ended with status {code}"),
        (None, None) => "the QEMU process ended unexpectedly".to_owned(),
    }
}

/// Empties a log that has grown too long: guests can make QEMU complain.
///
/// # Errors
/// Of the file system.
pub fn trim_log(dir: &Path) -> io::Result<()> {
    let log = OpenOptions::new().append(true).open(dir.join(LOG))?;
    if log.metadata()?.len() > LOG_BYTES {
        log.set_len(0)?;
    }
    Ok(())
}

/// The last thing QEMU complained about, fit for people.
#[must_use]
pub fn last_words(log: &Path) -> Option<String> {
    let mut log = fs::File::open(log).ok()?;
    let length = log.metadata().ok()?.len();
    log.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))
        .ok()?;
    let mut bytes = Vec::new();
    log.take(LOG_BYTES).read_to_end(&mut bytes).ok()?;
    reason(&String::from_utf8_lossy(&bytes))
}

/// QEMU's last message without its name, the option it is about, and paths.
fn reason(log: &str) -> Option<String> {
    let said = |line: &&str| !line.contains("warning:") && !line.trim().is_empty();
    let line = log.lines().rfind(said)?;
    let line = match line.split_once(": ") {
        Some((program, rest)) if program.contains("qemu") => rest,
        Some(_) | None => line,
    };
    let line = match line.split_once(": ") {
        // `-blockdev {…}: what is wrong`
        Some((option, _)) if option.starts_with('-') => {
            line.rsplit_once("}: ").or(line.split_once(": "))?.1
        }
        Some(_) | None => line,
    };
    let words = line
        .split_whitespace()
        .map(|word| if word.contains('/') { "(a file)" } else { word });
    let text = words.collect::<Vec<_>>().join(" ");
    let text = text.chars().filter(|c| !c.is_control());
    let text: String = text.take(REASON_CHARS).collect();
    (!text.is_empty()).then_some(text)
}

/// The name of a file in `PATH`, for messages.
#[must_use]
pub fn shown(name: &Path) -> String {
    let name = name.file_name().unwrap_or(OsStr::new("qemu"));
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reasons_have_no_path_and_no_option() {
        let cases = [
            (
                "qemu-system-x86_64: -blockdev {\"driver\":\"qcow2\"}: Could not open '/srv/x/disk': No such file or directory\n",
                "Could not open (a file) No such file or directory",
            ),
            (
                "qemu-system-x86_64: warning: host doesn't support it\nqemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory\n",
                "cannot set up guest memory 'pc.ram': Cannot allocate memory",
            ),
            (
                "/usr/bin/qemu-system-x86_64: -accel kvm: failed to initialize kvm: Permission denied\n",
                "failed to initialize kvm: Permission denied",
            ),
        ];
        for (log, wanted) in cases {
            assert_eq!(reason(log).as_deref(), Some(wanted));
        }
        assert_eq!(reason("\n \n"), None);
    }

    #[tokio::test]
    async fn process_is_found_by_pid_and_start_time_only() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        let identity = Identity::of(pid).unwrap();
        let mut other = identity.clone();
        other.started_ticks += 1;
        assert!(Process::find(&other).is_none());
        let process = Process::find(&identity).unwrap();
        process.kill();
        let soon = Duration::from_secs(5);
        tokio::time::timeout(soon, process.ended()).await.unwrap();
        assert!(Process::find(&identity).is_none(), "a zombie is gone");
        process.kill();
        let status = child.wait().await.unwrap();
        assert_eq!(describe(status), "the QEMU process was killed by signal 9");
    }

    #[tokio::test]
    async fn only_the_vms_own_process_is_found_in_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (VmId::from_parts(1, [1; 10]), VmId::from_parts(1, [2; 10]));
        let name = ours.to_string();
        let in_dir = |args: &[&str]| {
            let mut command = Command::new("sh");
            command.args(["-c", "read wait"]).args(args);
            let command = command.current_dir(dir.path()).stdin(Stdio::piped());
            command.spawn().unwrap()
        };
        let _somebody = in_dir(&[]);
        let qemu = in_dir(&["-name", &name]);
        let found = loop {
            // Until it is no longer a copy of this process.
            let found = running(ours, dir.path());
            if !found.is_empty() {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(found.len(), 1);
        assert_eq!(u32::try_from(found[0].pid).ok(), qemu.id());
        assert_eq!(running(other, dir.path()), []);
    }
}
