//! Finding the host's machines without the agent, and killing them.
//!
//! A machine is a process. The driver starts it in its VM's directory, gives
//! it the VM's id as `-name`, and records in `process.json` which one it is.
//! Where it runs and what it is called is asked first, because the answer
//! comes from memory even when the disk no longer answers; the records come
//! second. Nothing is killed by its pid, which another process may have got:
//! the descriptor is opened first, and then it is looked at who that is.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::limits::{ARGUMENT_BYTES, RECORD_BYTES};

const RECORD: &str = "process.json";

/// A process that was alive when it was killed.
pub struct Killed {
    pub vm: String,
    pub pid: i32,
    fd: OwnedFd,
}

impl Killed {
    /// Its end takes a moment, or longer where it waits for a disk.
    pub fn has_ended(&self) -> bool {
        has_ended(&self.fd).unwrap_or(false)
    }
}

/// Kills every machine below `machines` that lives. `host_boot` is this run of
/// the host.
///
/// # Errors
/// Where not all of them can be seen or killed; those that can are killed
/// even so.
pub fn kill_all(machines: &Path, host_boot: &str) -> (Vec<Killed>, io::Result<()>) {
    let mut killed = Vec::new();
    let by_place = kill_by_place(machines, &mut killed);
    let by_record = kill_by_record(machines, host_boot, &mut killed);
    (killed, by_place.and(by_record))
}

/// Random id of this run of the host.
///
/// # Errors
/// Where the system does not tell.
pub fn host_boot() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

fn kill_by_place(machines: &Path, killed: &mut Vec<Killed>) -> io::Result<()> {
    let mut result = Ok(());
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if vm_at(machines, pid).is_none() {
            continue;
        }
        let done = living(pid).and_then(|fd| match (fd, vm_at(machines, pid)) {
            // Looked at once more: the descriptor is of this process.
            (Some(fd), Some(vm)) if is_named(pid, &vm) => kill(vm, pid, fd).map(Some),
            _ => Ok(None),
        });
        note(done, killed, &mut result);
    }
    result
}

fn kill_by_record(machines: &Path, host_boot: &str, killed: &mut Vec<Killed>) -> io::Result<()> {
    let entries = match fs::read_dir(machines) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut result = Ok(());
    for entry in entries {
        let entry = entry?;
        // No record, or one that makes no sense: nothing to go by.
        let Some(recorded) = recorded(&entry.path().join(RECORD), host_boot) else {
            continue;
        };
        let vm = entry.file_name().to_string_lossy().into_owned();
        let pid = recorded.pid;
        let done = living(pid).and_then(|fd| match fd {
            Some(fd) if start_time(pid) == Some(recorded.started_ticks) => {
                kill(vm, pid, fd).map(Some)
            }
            Some(_) | None => Ok(None),
        });
        note(done, killed, &mut result);
    }
    result
}

/// One that resists is no reason to spare the others.
fn note(done: io::Result<Option<Killed>>, killed: &mut Vec<Killed>, result: &mut io::Result<()>) {
    match done {
        Ok(one) => killed.extend(one),
        Err(error) => *result = Err(error),
    }
}

/// A descriptor of the process with this pid; `None` where it has ended. One
/// that only waits to be reaped has ended once all of its threads have.
fn living(pid: i32) -> io::Result<Option<OwnedFd>> {
    let Some(raw) = Pid::from_raw(pid).filter(|_| pid > 1) else {
        return Ok(None);
    };
    let fd = match pidfd_open(raw, PidfdFlags::empty()) {
        // EINVAL: the pid is a thread's by now.
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        fd => fd?,
    };
    Ok((!has_ended(&fd)?).then_some(fd))
}

fn has_ended(fd: &OwnedFd) -> io::Result<bool> {
    let now = Timespec::default();
    Ok(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&now))? > 0)
}

fn kill(vm: String, pid: i32, fd: OwnedFd) -> io::Result<Killed> {
    match pidfd_send_signal(&fd, Signal::KILL) {
        // It ended meanwhile.
        Ok(()) | Err(Errno::SRCH) => Ok(Killed { vm, pid, fd }),
        Err(error) => Err(error.into()),
    }
}

/// The VM in whose directory a process runs, even if that was removed.
fn vm_at(machines: &Path, pid: i32) -> Option<String> {
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let mut below = cwd.strip_prefix(machines).ok()?.components();
    let (Some(Component::Normal(dir)), None) = (below.next(), below.next()) else {
        return None;
    };
    // "vm_x", "vm_x.gone", "vm_x (deleted)"
    let vm = dir.to_str()?.split(['.', ' ']).next()?;
    Some(vm.to_owned())
}

/// Whether a process was started for a VM: somebody's shell may be in its
/// directory, too.
fn is_named(pid: i32, vm: &str) -> bool {
    let mut args = Vec::new();
    let read = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(ARGUMENT_BYTES).read_to_end(&mut args));
    let args: Vec<&[u8]> = args.split(|byte| *byte == 0).collect();
    // The name itself, or with more options of the same argument behind it.
    let is_vm = |value: &[u8]| value.split(|byte| *byte == b',').next() == Some(vm.as_bytes());
    read.is_ok()
        && args
            .array_windows()
            .any(|[option, value]| *option == b"-name" && is_vm(value))
}

struct Recorded {
    pid: i32,
    started_ticks: u64,
}

/// The process on record, if it is of this run of the host. Read leniently:
/// the record is another program's and may say more one day.
fn recorded(path: &Path, host_boot: &str) -> Option<Recorded> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(RECORD_BYTES).read_to_end(&mut bytes).ok()?;
    let record: Value = serde_json::from_slice(&bytes).ok()?;
    let process = record.get("process")?;
    if process.get("host_boot")?.as_str()? != host_boot {
        return None;
    }
    Some(Recorded {
        pid: i32::try_from(process.get("pid")?.as_i64()?).ok()?,
        started_ticks: process.get("started_ticks")?.as_u64()?,
    })
}

/// Clock ticks between the host's start and the process's.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in brackets and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}
