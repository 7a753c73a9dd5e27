//! The processes that are measured.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use vimana_client::CaFile;

use crate::process::Process;

/// Of user admin.
pub const PASSWORD: &str = "correct horse battery staple";
/// Open files that a login shell allows as a rule.
const USUAL_FILES: &str = "1024";

/// Binaries and a directory.
pub struct Installation {
    bin: PathBuf,
    dir: PathBuf,
}

/// A server at work. Dropping it kills it.
pub struct Server {
    child: Ended,
    pub url: String,
    pub agent_url: String,
}

/// A process that ends with its owner.
pub struct Ended(Child);

impl Ended {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

impl Installation {
    pub fn new(bin: &Path, dir: &Path) -> Result<Self> {
        let installation = Self {
            bin: bin.to_owned(),
            dir: dir.to_owned(),
        };
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        std::fs::write(installation.certificate(), made.cert.pem())?;
        std::fs::write(installation.key(), made.signing_key.serialize_pem())?;
        std::fs::write(installation.image(), image())?;
        Ok(installation)
    }

    pub fn ca(&self) -> CaFile {
        CaFile(self.certificate())
    }

    pub async fn start_server(&self) -> Result<Server> {
        let mut child = self.spawn_server("127.0.0.1:0", "127.0.0.1:0")?;
        let out = child.0.stdout.take().context("no output of the server")?;
        let (url, agent_url) = tokio::task::spawn_blocking(|| addresses(out)).await??;
        Ok(Server {
            child,
            url,
            agent_url,
        })
    }

    /// Where it was before; does not wait until it answers.
    pub fn start_again(&self, server: &mut Server) -> Result<()> {
        let listen = server.url.trim_start_matches("https://");
        let agent_listen = server.agent_url.trim_start_matches("https://");
        server.child = self.spawn_server(listen, agent_listen)?;
        Ok(())
    }

    fn spawn_server(&self, listen: &str, agent_listen: &str) -> Result<Ended> {
        // With as few open files as it may get from whoever starts it.
        let spawned = Command::new("sh")
            .args(["-c", r#"ulimit -S -n "$0" && exec "$@""#, USUAL_FILES])
            .arg(self.bin.join("vimana-server"))
            .args(["--listen", listen, "--agent-listen", agent_listen])
            .arg("--data-dir")
            .arg(self.data())
            .arg("--tls-cert")
            .arg(self.certificate())
            .arg("--tls-key")
            .arg(self.key())
            .arg("--import-image")
            .arg(format!("demo={}", self.image().display()))
            .env("VIMANA_ADMIN_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log("server")?)
            .spawn();
        Ok(Ended(spawned.context("cannot start the server")?))
    }

    pub fn start_scheduler(&self, url: &str) -> Result<Ended> {
        let spawned = Command::new(self.bin.join("vimana-scheduler"))
            .args(["--server", url, "--ca-file"])
            .arg(self.certificate())
            .arg("--secret-file")
            .arg(self.data().join("secrets/scheduler"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log("scheduler")?)
            .spawn();
        Ok(Ended(spawned.context("cannot start the scheduler")?))
    }

    /// Recomputes the rules that always hold.
    pub fn check(&self) -> Result<()> {
        let output = Command::new(self.bin.join("vimana-server"))
            .args(["fsck", "--data-dir"])
            .arg(self.data())
            .output()
            .context("cannot start fsck")?;
        let found = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "fsck found something: {found}");
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.join("server")
    }

    fn certificate(&self) -> PathBuf {
        self.dir.join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.dir.join("key.pem")
    }

    fn image(&self) -> PathBuf {
        self.dir.join("demo.img")
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.dir.join(format!("{name}.log"));
        let opened = File::options().create(true).append(true).open(&path);
        opened.with_context(|| format!("cannot write to {}", path.display()))
    }
}

impl Server {
    pub fn process(&self) -> Process {
        Process::new(self.child.id())
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()
    }
}

/// What the server prints once it listens.
fn addresses(out: ChildStdout) -> Result<(String, String)> {
    let (mut url, mut agent_url) = (None, None);
    let mut lines = BufReader::new(out);
    while url.is_none() || agent_url.is_none() {
        let mut line = String::new();
        let read = lines.read_line(&mut line)?;
        ensure!(read > 0, "the server ended");
        let line = line.trim_end();
        let told = line.strip_prefix("Vimana listens on ");
        url = url.or_else(|| told.map(str::to_owned));
        let told = line.strip_prefix("Agents connect to ");
        agent_url = agent_url.or_else(|| told.map(str::to_owned));
    }
    url.zip(agent_url).context("the server names no address")
}

/// An empty raw disk of 1 MiB.
fn image() -> Vec<u8> {
    vec![0; 1 << 20]
}
