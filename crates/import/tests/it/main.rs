//! Imports from a web server that does what it is told, good and bad.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

mod bad;
mod broken;
mod good;
mod web;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use vimana_fetch::Reach;
use vimana_import::{Bounds, ImportError, Input, Job, Patience, Progress, Staged, Staging, import};

use crate::web::Web;

struct Scene {
    dir: TempDir,
    web: Web,
    job: Job,
}

impl Scene {
    fn new(content: Vec<u8>) -> Self {
        let web = Web::new(content);
        let job = Job {
            input: Input::Remote {
                source: web.url().parse().unwrap(),
                reach: Reach::new(vec!["127.0.0.1/32".parse().unwrap()]),
            },
            checksum: None,
            converter: None,
            declared: None,
            bounds: Bounds {
                max_bytes: 256 << 20,
                max_virtual_bytes: 1 << 40,
                bytes_per_second: None,
            },
            patience: Patience {
                tries: 3,
                first_wait: Duration::from_millis(1),
            },
        };
        Self {
            dir: TempDir::new().unwrap(),
            web,
            job,
        }
    }

    fn staging(&self) -> Staging {
        Staging::new(self.dir.path().join("staging"))
    }

    async fn import(&self) -> Result<Staged, ImportError> {
        import(&self.job, &self.staging(), |_: Progress| ()).await
    }

    async fn refusal(&self) -> String {
        self.import().await.unwrap_err().to_string()
    }
}

/// Bytes that do not pack.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// A disk of 64 MiB with something in it, as qcow2.
fn qcow2(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let raw = dir.join("raw");
    let mut bytes = noise(5 << 20);
    bytes.resize(64 << 20, 0);
    fs::write(&raw, bytes).unwrap();
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args(arguments);
    let made = command.arg(&raw).arg(dir.join("image")).status().unwrap();
    assert!(made.success());
    fs::read(dir.join("image")).unwrap()
}

/// What a packing tool makes of it.
fn packed(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || input.write_all(bytes).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}
