//! A PostgreSQL server for the length of one test process.
//!
//! `initdb` takes most of the time to a first answer, so its result is kept as
//! an archive in the target directory and unpacked next time: nextest runs
//! every case in a process of its own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, String>;

/// The running server. It belongs to a thread that lives until
/// [`Server::stop`]: the kernel ends it together with that thread, so it goes
/// even when the process is killed.
pub struct Server {
    port: u16,
    keeper: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
}

static SERVER: OnceLock<Outcome<Server>> = OnceLock::new();

impl Server {
    /// URL of a database on the server, which is started by the first caller.
    pub fn url(database: &str) -> Outcome<String> {
        match SERVER.get_or_init(Self::start) {
            Ok(server) => Ok(format!(
                "postgres://vimana@127.0.0.1:{}/{database}",
                server.port
            )),
            Err(error) => Err(error.clone()),
        }
    }

    /// Stops the server, if there is one, and removes its directory.
    pub fn stop() {
        let Some(Ok(server)) = SERVER.get() else {
            return;
        };
        let keeper = server.keeper.lock().unwrap().take();
        if let Some((stop, thread)) = keeper {
            drop(stop);
            thread.join().unwrap();
        }
    }

    fn start() -> Outcome<Self> {
        let (ready, is_ready) = channel();
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || keep(&ready, &stopped));
        let port = is_ready
            .recv()
            .map_err(|_| "the server's thread ended".to_owned())??;
        Ok(Self {
            port,
            keeper: Mutex::new(Some((stop, thread))),
        })
    }
}

/// Runs the server until the sender of `stopped` is gone.
fn keep(ready: &Sender<Outcome<u16>>, stopped: &Receiver<()>) {
    let started = (|| {
        let installation = Installation::find()?;
        let directory = tempfile::Builder::new()
            .prefix("vimana-store-postgres-")
            .tempdir()
            .map_err(text)?;
        let data = installation.data_directory(directory.path())?;
        let (child, port) = installation.serve(&data)?;
        Ok((installation, directory, data, child, port))
    })();
    match started {
        Ok((installation, directory, data, mut child, port)) => {
            ready.send(Ok(port)).unwrap();
            stopped.recv().unwrap_err();
            installation.stop(&data, &mut child);
            drop(directory);
        }
        Err(error) => ready.send(Err(error)).unwrap(),
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The server's programs and the user they run as.
struct Installation {
    bin: PathBuf,
    /// `initdb` and the server refuse root.
    user: Option<&'static str>,
}

impl Installation {
    fn find() -> Outcome<Self> {
        let bin = bin_directories()
            .into_iter()
            .find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
            .ok_or(
                "PostgreSQL is missing, and its half of the suite is not optional: \
                 install it (Debian: apt-get install postgresql)",
            )?;
        let root = fs::metadata("/proc/self").map_err(text)?.uid() == 0;
        let has_user = |name: &str| {
            let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
            passwd
                .lines()
                .any(|line| line.starts_with(&format!("{name}:")))
        };
        let user = match root {
            false => None,
            true if has_user("postgres") => Some("postgres"),
            true => Some("nobody"),
        };
        Ok(Self { bin, user })
    }

    /// The program, run as the server's user and ended with this thread.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = self.user {
            command.args(["--reuid", user, "--clear-groups"]);
        }
        command.arg(program.as_ref()).current_dir("/");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Outcome<()> {
        let mut command = self.command(self.bin.join(program));
        finish(command.args(arguments).stdout(Stdio::null()))
    }

    /// A fresh data directory inside `directory`.
    fn data_directory(&self, directory: &Path) -> Outcome<PathBuf> {
        self.own(directory)?;
        let data = directory.join("data");
        let kind = self.bin.display().to_string().replace('/', "_");
        let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres{kind}.tar"));
        // The archive goes through a pipe: the server's user need not reach it.
        let mut tar = self.command("tar");
        tar.arg("-C").arg(directory);
        if let Ok(packed) = File::open(&archive) {
            finish(tar.arg("-x").stdin(packed))?;
            return Ok(data);
        }
        let shown = data.display().to_string();
        let initdb = [
            "-D",
            &shown,
            "-U",
            "vimana",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-N",
            // Small, since every process of the suite unpacks one.
            "--wal-segsize=1",
        ];
        self.run("initdb", &initdb)?;
        // Renamed into place, so that another process never sees half of it.
        let half = archive.with_extension(format!("{}.half", std::process::id()));
        let packed = File::create(&half).map_err(text)?;
        finish(tar.args(["-c", "data"]).stdout(packed))?;
        fs::rename(&half, &archive).map_err(text)?;
        Ok(data)
    }

    fn own(&self, directory: &Path) -> Outcome<()> {
        match self.user {
            Some(user) => finish(Command::new("chown").arg(user).arg(directory)),
            None => Ok(()),
        }
    }

    /// Starts the server on a port that is free, and waits until it answers.
    fn serve(&self, data: &Path) -> Outcome<(Child, u16)> {
        let mut last = String::new();
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .map_err(text)?
                .port();
            match self.serve_on(data, port) {
                Ok(child) => return Ok((child, port)),
                // Somebody may have taken the port meanwhile.
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn serve_on(&self, data: &Path, port: u16) -> Outcome<Child> {
        let mut command = self.command(self.bin.join("postgres"));
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "max_connections=300",
            "autovacuum=off",
        ] {
            command.args(["-c", setting]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(text)?;
        let log = BufReader::new(child.stderr.take().ok_or("the server has no log")?);
        let (said, says) = channel();
        std::thread::spawn(move || {
            // Reads on after the server is up: a full pipe would stop it.
            for line in log.lines().map_while(Result::ok) {
                said.send(line).ok();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut all = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = says.recv_timeout(left) else {
                child.kill().ok();
                child.wait().ok();
                return Err(format!("PostgreSQL did not start:\n{all}"));
            };
            if line.contains("ready to accept connections") {
                return Ok(child);
            }
            all.push_str(&line);
            all.push('\n');
        }
    }

    fn stop(&self, data: &Path, child: &mut Child) {
        let data = data.display().to_string();
        if self
            .run("pg_ctl", &["-D", &data, "-m", "immediate", "stop"])
            .is_err()
        {
            child.kill().ok();
        }
        child.wait().ok();
    }
}

fn bin_directories() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    found.sort();
    found.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    found
}

fn finish(command: &mut Command) -> Outcome<()> {
    let shown = format!("{:?}", command.get_program());
    let output = command
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let told = String::from_utf8_lossy(&output.stderr);
        Err(format!("{shown} failed: {told}"))
    }
}
