//! Which accelerator a host really has.
//!
//! That `/dev/kvm` opens proves nothing: on software-virtualized hosts it may
//! run a boot sector slowly and a kernel never. So guests are booted and timed.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;
use vimana_driver::Fault;
use vimana_model::host::Accelerator;

use crate::argv;
use crate::boot_sector::{READY, boot_sector};
use crate::config::{AcceleratorSetting, ProbeImage, QemuConfig};
use crate::host::blocking;
use crate::limits::{PROBE_KERNEL_TIMEOUT, PROBE_SECTOR_TIMEOUT};
use crate::prepare;
use crate::process;
use crate::qcow2;
use crate::record::{self, Record, Scratch};

/// Where probes run, below the state directory.
const PROBE_DIR: &str = "probe";
/// Any of these on the serial line means that a kernel runs.
const KERNEL_SIGNS: [&str; 4] = ["Linux version", "systemd", "login:", "vimana-demo ready"];

/// A probe's result, valid while its circumstances are the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verdict {
    circumstances: Circumstances,
    accelerator: Accelerator,
    note: String,
}

impl Record for Verdict {
    const FILE: &'static str = "accelerator.json";
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Circumstances {
    kernel: String,
    qemu: String,
    /// Device and inode number of `/dev/kvm`, where it opens.
    kvm: Option<(u64, u64)>,
    /// A kernel was booted, too.
    with_kernel: bool,
}

/// The accelerator to use and how it was chosen, for people.
pub async fn choose(
    config: &QemuConfig,
    qemu: &Path,
    version: &str,
) -> Result<(Accelerator, String), Fault> {
    match config.accelerator {
        AcceleratorSetting::Kvm => {
            let note = "KVM by configuration; it was not probed".to_owned();
            return Ok((Accelerator::Kvm, note));
        }
        AcceleratorSetting::Tcg => {
            let note = "TCG by configuration: guests are translated in software".to_owned();
            return Ok((Accelerator::Tcg, note));
        }
        AcceleratorSetting::Auto => {}
    }
    let state = config.state_dir.clone();
    let now = Circumstances {
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        qemu: version.to_owned(),
        kvm: kvm_identity(),
        with_kernel: config.probe_image.is_some(),
    };
    // A record that cannot be read is made anew.
    let before: Option<Verdict> = record::read(&state).unwrap_or_default();
    if let Some(verdict) = before.filter(|verdict| verdict.circumstances == now) {
        return Ok((verdict.accelerator, verdict.note));
    }
    let (accelerator, note) = match probe(config, qemu, now.kvm.is_some()).await {
        Ok(note) => (Accelerator::Kvm, note),
        Err(note) => {
            let note = format!("{note}; guests are translated in software");
            (Accelerator::Tcg, note)
        }
    };
    tracing::info!(%accelerator, note, "the accelerator was probed");
    let verdict = Verdict {
        circumstances: now,
        accelerator,
        note: note.clone(),
    };
    blocking(move || {
        let written = record::write(&state, &verdict);
        written.map_err(|error| Fault::io("recording the probe", &error))
    })
    .await?;
    Ok((accelerator, note))
}

fn kvm_identity() -> Option<(u64, u64)> {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let facts = kvm.ok()?.metadata().ok()?;
    Some((facts.rdev(), facts.ino()))
}

/// What KVM did, or what it failed to do.
async fn probe(config: &QemuConfig, qemu: &Path, kvm: bool) -> Result<String, String> {
    if !kvm {
        return Err("this host has no KVM, or the agent may not use it".to_owned());
    }
    let dir = Scratch(config.state_dir.join(PROBE_DIR));
    let broke = |error| Fault::io("preparing the probe of KVM", &error).message;
    dir.remove().map_err(broke)?;
    record::make_dir(&dir.0).map_err(broke)?;

    let sector = sector_disk(&dir.0).map_err(broke)?;
    let args = argv::probe(Accelerator::Kvm, 32, &sector);
    let ready = says(qemu, &args, &dir.0, &[READY]);
    let sector_ms = timed(ready, PROBE_SECTOR_TIMEOUT, "a boot sector").await?;
    let Some(image) = &config.probe_image else {
        return Ok(format!(
            "KVM was probed and ran a boot sector in {sector_ms} ms"
        ));
    };
    let disk = image_disk(&dir.0, image)?;
    let args = argv::probe(Accelerator::Kvm, 512, &disk);
    let ready = says(qemu, &args, &dir.0, &KERNEL_SIGNS);
    let kernel_ms = timed(ready, PROBE_KERNEL_TIMEOUT, "a kernel").await?;
    Ok(format!("KVM was probed and ran a kernel in {kernel_ms} ms"))
}

async fn timed(
    ready: impl Future<Output = Result<(), String>>,
    within: std::time::Duration,
    what: &str,
) -> Result<u128, String> {
    let since = Instant::now();
    match timeout(within, ready).await {
        Ok(Ok(())) => Ok(since.elapsed().as_millis()),
        Ok(Err(reason)) => Err(format!("KVM was probed and failed with {what}: {reason}")),
        Err(_) => Err(format!(
            "KVM was probed and did not run {what} within {} s",
            within.as_secs()
        )),
    }
}

fn sector_disk(dir: &Path) -> std::io::Result<Value> {
    let name = "sector";
    let mut file = record::new_file(&dir.join(name))?;
    file.write_all(&boot_sector())?;
    // The BIOS takes no disk of one sector.
    file.set_len(1 << 20)?;
    let file = json!({"driver": "file", "filename": name, "read-only": true});
    Ok(json!({"driver": "raw", "node-name": "disk", "read-only": true, "file": file}))
}

fn image_disk(dir: &Path, image: &ProbeImage) -> Result<Value, String> {
    let unusable = |what: String| format!("KVM was not probed with a kernel: {what}");
    let (_, size) =
        prepare::measure(&image.path, image.format).map_err(|fault| unusable(fault.message))?;
    let path = std::path::absolute(&image.path).ok();
    let path = path.as_deref().and_then(Path::to_str);
    let path = path.ok_or_else(|| unusable("the image has no usable name".to_owned()))?;
    let written = record::new_file(&dir.join(argv::DISK))
        .and_then(|file| qcow2::write_empty(&file, size, Some((path, image.format))));
    written.map_err(|error| unusable(Fault::io("making its disk", &error).message))?;
    Ok(argv::disk(path, image.format))
}

/// Runs a guest until one of `signs` is on its serial line.
async fn says(qemu: &Path, args: &[String], dir: &Path, signs: &[&str]) -> Result<(), String> {
    let broke = |error: std::io::Error| Fault::io("running QEMU", &error).message;
    let log = dir.join(process::LOG);
    record::remove_file(&log).map_err(broke)?;
    let mut child = Command::new(qemu)
        .args(args)
        .current_dir(dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(record::new_file(&log).map_err(broke)?)
        .kill_on_drop(true)
        .spawn()
        .map_err(broke)?;
    let mut output = child.stdout.take();
    let mut seen = Vec::new();
    while let Some(output) = &mut output {
        if output.read_buf(&mut seen).await.map_err(broke)? == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&seen);
        if signs.iter().any(|sign| text.contains(sign)) {
            return child.kill().await.map_err(broke);
        }
    }
    Err(process::last_words(&dir.join(process::LOG))
        .unwrap_or_else(|| "QEMU ended at once".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Under TCG, which is everywhere: what is tried here is the probe.
    #[tokio::test]
    async fn boot_sector_reports_itself() {
        let dir = tempfile::tempdir().unwrap();
        let disk = sector_disk(dir.path()).unwrap();
        let args = argv::probe(Accelerator::Tcg, 32, &disk);
        let qemu = process::find_binary(Path::new("qemu-system-x86_64")).unwrap();
        let ready = says(&qemu, &args, dir.path(), &[READY]);
        timed(ready, Duration::from_secs(20), "it").await.unwrap();
        let never = says(&qemu, &args, dir.path(), &["something else"]);
        let note = timed(never, Duration::from_millis(500), "a kernel").await;
        assert_eq!(
            note.unwrap_err(),
            "KVM was probed and did not run a kernel within 0 s"
        );
    }

    #[tokio::test]
    async fn failure_has_qemus_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let args = argv::probe(Accelerator::Tcg, 32, &json!({"driver": "no-such"}));
        let qemu = process::find_binary(Path::new("qemu-system-x86_64")).unwrap();
        let failed = says(&qemu, &args, dir.path(), &[READY]).await;
        let reason = failed.unwrap_err();
        assert!(reason.contains("no-such"), "{reason}");
    }

    #[tokio::test]
    async fn verdict_is_remembered_until_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let config = QemuConfig::new(dir.path());
        let circumstances = Circumstances {
            kernel: rustix::system::uname().release().to_string_lossy().into(),
            qemu: "1.2.3".to_owned(),
            kvm: kvm_identity(),
            with_kernel: false,
        };
        let verdict = Verdict {
            circumstances,
            accelerator: Accelerator::Kvm,
            note: "from before".to_owned(),
        };
        record::write(dir.path(), &verdict).unwrap();
        let no_qemu = Path::new("no-such-qemu");
        let again = choose(&config, no_qemu, "1.2.3").await.unwrap();
        assert_eq!(again, (Accelerator::Kvm, "from before".to_owned()));
        let other = choose(&config, no_qemu, "1.2.4").await.unwrap();
        assert_eq!(other.0, Accelerator::Tcg);
    }
}
