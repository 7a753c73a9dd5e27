//! A real Linux: its path is in `VIMANA_DEMO_IMAGE`, and `demo-image/build.sh`
//! makes it. What only a kernel can show: the seed disk, as Linux mounts it,
//! and a shutdown by ACPI.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests, and what helps them"
)]

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vimana_driver::conformance::{new_vm, read_until};
use vimana_driver::{GuestEnd, HostDriver as _, ImageRef, IncarnationSpec, Power, Seed};
use vimana_driver_qemu::{AcceleratorSetting, QemuConfig, QemuDriver};
use vimana_model::ImageId;
use vimana_model::image::ImageFormat;
use vimana_model::ssh_key::SshKey;
use vimana_model::unit::{MiB, Resources};
use vimana_model::user_data::UserData;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ2rGOwkGpQ8bDJcCk3vYrdcDnVK6tA0gGwXz1iHx9r a b";

fn demo_image() -> PathBuf {
    let path = std::env::var_os("VIMANA_DEMO_IMAGE");
    let path = path.expect("VIMANA_DEMO_IMAGE names the demo image");
    let path = PathBuf::from(path);
    assert!(path.is_file(), "VIMANA_DEMO_IMAGE names a file");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn linux_reads_its_seed_and_shuts_down_when_asked() {
    let image = demo_image();
    let dir = tempfile::tempdir().unwrap();
    let mut config = QemuConfig::new(dir.path());
    config.accelerator = AcceleratorSetting::Tcg;
    let driver = QemuDriver::open(config).await.unwrap();
    let spec = IncarnationSpec {
        vm_id: new_vm(),
        run_epoch: 1,
        resources: Resources {
            vcpus: 1,
            memory_mib: MiB(256),
            disk_mib: MiB(1024),
        },
        image: ImageRef {
            id: ImageId::from_parts(1, [0; 10]),
            format: ImageFormat::Qcow2,
            size_bytes: std::fs::metadata(&image).unwrap().len(),
            sha256: "0".repeat(64),
        },
        seed: Seed {
            host_name: "web-1".to_owned(),
            ssh_key: Some(SshKey::new(KEY).unwrap()),
            user_data: Some(
                UserData::new(
                    "#!/bin/sh\nfor f in /run/seed/*; do echo \"seed=$f\" >/dev/console; done\n\
                     cat /run/seed/meta-data /root/.ssh/authorized_keys >/dev/console\n\
                     echo \"name=$(hostname)\" \"last\" >/dev/console\n",
                )
                .unwrap(),
            ),
        },
    };
    let state = dir.path().join(spec.vm_id.to_string());
    let _guard = Guard(state);
    driver.prepare(&spec, &image).await.unwrap();
    driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    let mut line = driver.serial(spec.vm_id).await.unwrap();
    let mut seen = boot_output(&mut line, "vimana-demo ready").await;
    if !seen.contains("last") {
        seen += &read_until(&mut line, "last").await;
    }
    let instance = format!("instance-id: \"{}\"", spec.vm_id);
    for wanted in [
        "seed=/run/seed/meta-data",
        "seed=/run/seed/user-data",
        &instance,
        KEY,
        "name=web-1 last",
    ] {
        assert!(seen.contains(wanted), "{wanted:?} is not in:\n{seen}");
    }
    let grace = Duration::from_secs(60);
    let end = driver.shutdown(spec.vm_id, 1, grace).await.unwrap();
    assert_eq!(end, GuestEnd::ByGuest);
    let held = driver.inventory().await.unwrap();
    assert_eq!(held.first().map(|o| o.power.clone()), Some(Power::Off));
    driver.clean(spec.vm_id, 1).await.unwrap();
}

/// The machine outlives the driver, but not the test.
struct Guard(PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        let record = std::fs::read(self.0.join("process.json")).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
        let pid = record["process"]["pid"].as_i64().unwrap_or(0);
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Linux under TCG on a busy machine takes its time.
async fn boot_output(line: &mut Box<dyn vimana_driver::SerialStream>, wanted: &str) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut seen = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            assert_ne!(line.read_buf(&mut seen).await.unwrap(), 0, "the line ended");
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(120), reading).await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(ended.is_ok(), "no {wanted:?} in:\n{seen}");
    seen
}
