//! A data directory with machines and a watchdog.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::json;
use tempfile::TempDir;
use vimana_watchdog::protocol::{Request, State};
use vimana_watchdog::{BootTime, Client, Fenced, MACHINES, READY, host_boot};

/// Longer than anything takes that takes place at all.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A lease that is over soon.
pub const SHORT: Duration = Duration::from_millis(300);
/// Time enough to connect to a watchdog that does not linger for long.
pub const LINGER: Duration = Duration::from_secs(2);
/// A lease that outlasts every test.
pub const LONG: Duration = Duration::from_secs(600);

pub struct World {
    path: PathBuf,
    _dir: TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(MACHINES)).unwrap();
        Self {
            path: dir.path().to_owned(),
            _dir: dir,
        }
    }

    pub fn dir(&self) -> &Path {
        &self.path
    }

    /// Has its data directory there, inside the other one.
    pub fn enter(&mut self, path: PathBuf) {
        self.path = path;
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vimana-watchdog"));
        command.arg("--data-dir").arg(self.dir());
        command
    }

    /// A watchdog that ends with its test at the latest.
    pub fn watchdog(&self) -> Process {
        self.watchdog_that_lingers(LONG)
    }

    pub fn watchdog_that_lingers(&self, linger: Duration) -> Process {
        let mut command = self.command();
        command.args(["--linger-ms", &linger.as_millis().to_string()]);
        let (process, said) = first_line(command);
        assert_eq!(said, READY);
        process
    }

    pub fn client(&self) -> Client {
        Client::connect(self.dir()).unwrap().0
    }

    pub fn vm_dir(&self, vm: &str) -> PathBuf {
        let dir = self.dir().join(MACHINES).join(vm);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A process that is on record, and nothing else, as a VM's machine.
    pub fn recorded(&self, vm: &str) -> Process {
        let process = sleeper();
        self.record(vm, &process, start_ticks(process.pid()));
        process
    }

    /// Writes `process.json` as the driver does.
    pub fn record(&self, vm: &str, process: &Process, started_ticks: u64) {
        let record = json!({
            "run_epoch": 1,
            "process": {
                "pid": process.pid(),
                "started_ticks": started_ticks,
                "host_boot": host_boot().unwrap(),
            },
        });
        fs::write(self.vm_dir(vm).join("process.json"), record.to_string()).unwrap();
    }

    /// A process in a VM's directory with these arguments.
    pub fn in_place(&self, vm: &str, args: &[&str]) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", "echo; read wait"]).args(args);
        command.current_dir(self.vm_dir(vm)).stdin(Stdio::piped());
        // By then it is no longer a copy of this process.
        first_line(command).0
    }

    /// Waits until machines were stopped for the want of a lease after `until`,
    /// and all is done and on record.
    pub fn settled(&self, until: BootTime) -> Fenced {
        let mut client = self.client();
        let begun = BootTime::now();
        while begun.until(BootTime::now()) < PATIENCE {
            // A lease that is over changes nothing; each answer comes after
            // another turn of the watchdog.
            let mut ask = || client.ask(Request::Lease { until }).unwrap();
            ask();
            let fenced = Fenced::read(self.dir()).unwrap();
            if let Some(fenced) = fenced.filter(|fenced| fenced.complete && fenced.at_ms == until) {
                assert_eq!(ask(), State::Fenced { at: until });
                return fenced;
            }
        }
        panic!("nothing was fenced: {}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("watchdog.log")).unwrap()
    }
}

impl Drop for World {
    /// What a driver started is no child of the test, and goes with it even so.
    fn drop(&mut self) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let cwd = fs::read_link(entry.path().join("cwd"));
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw)
                && cwd.is_ok_and(|cwd| cwd.starts_with(&self.path))
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// A child that does not outlive its test.
pub struct Process {
    pub child: Child,
    fd: OwnedFd,
}

impl Process {
    pub fn new(child: Child) -> Self {
        let fd = descriptor(i32::try_from(child.id()).unwrap());
        Self { child, fd }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn ended_within(&self, patience: Duration) -> bool {
        ended_within(&self.fd, patience)
    }

    pub fn is_alive(&self) -> bool {
        !self.ended_within(Duration::ZERO)
    }

    /// Waits until it has ended by SIGKILL.
    pub fn is_killed(&mut self) {
        assert!(self.ended_within(PATIENCE), "it lives on");
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }

    /// Waits until `time` is over, which it has to see.
    pub fn outlives(&self, time: BootTime) {
        while BootTime::now() <= time {
            let rest = BootTime::now().until(time) + Duration::from_millis(1);
            assert!(!self.ended_within(rest), "it was killed");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn descriptor(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

pub fn ended_within(fd: &OwnedFd, patience: Duration) -> bool {
    let end = BootTime::now().plus(patience);
    loop {
        let rest = Timespec::try_from(BootTime::now().until(end)).unwrap();
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&rest)) {
            // A child of another test ended.
            Err(Errno::INTR) => {}
            ended => return ended.unwrap() > 0,
        }
    }
}

pub fn sleeper() -> Process {
    Process::new(Command::new("sleep").arg("3600").spawn().unwrap())
}

/// Starts a process and waits for its first line.
pub fn first_line(mut command: Command) -> (Process, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let process = Process::new(child);
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    (process, line.trim().to_owned())
}

pub fn start_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(19).unwrap().parse().unwrap()
}
