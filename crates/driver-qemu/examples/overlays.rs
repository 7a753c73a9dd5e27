//! How long it takes to make a machine's disk and seed, which are on the disk
//! then, and to look at an image's header:
//! `cargo run --release -p vimana-driver-qemu --example overlays -- DIR IMAGE [ROUNDS]`.
//!
//! `DIR` is on the disk that is to be measured; `IMAGE` is a qcow2 image. Prints
//! one JSON object per figure: `name`, `value`, `unit`, `goal`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use vimana_driver::{FaultKind, HostDriver as _, ImageRef, IncarnationSpec, Seed};
use vimana_driver_qemu::{AcceleratorSetting, QemuConfig, QemuDriver};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{ImageId, VmId};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ROUNDS: u64 = 1000;

fn spec(round: u64, size_bytes: u64) -> IncarnationSpec {
    IncarnationSpec {
        vm_id: VmId::from_parts(round, [1; 10]),
        run_epoch: 1,
        resources: Resources {
            vcpus: 1,
            memory_mib: MiB(128),
            disk_mib: MiB(20 << 10),
        },
        datastore: DatastoreName::local(),
        image: ImageRef {
            id: ImageId::from_parts(1, [1; 10]),
            format: ImageFormat::Qcow2,
            size_bytes,
            // Whoever fetched it has seen to that.
            sha256: String::new(),
        },
        seed: Seed {
            host_name: "guest".to_owned(),
            ssh_key: None,
            user_data: None,
        },
    }
}

async fn measure(dir: &Path, image: &Path, rounds: u64) -> Result<(), Failure> {
    let mut config = QemuConfig::new(dir);
    // Nothing is started.
    config.accelerator = AcceleratorSetting::Tcg;
    let driver = QemuDriver::open(config).await?;
    let size_bytes = std::fs::metadata(image)?.len();
    let (mut made, mut looked) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let wanted = spec(round, size_bytes);
        let start = Instant::now();
        driver.prepare(&wanted, image).await?;
        made.push(start.elapsed());
        driver.clean(wanted.vm_id, 1).await?;
        // One that is not what was promised is refused once its header was
        // looked at, and nothing was made.
        let refused = spec(round.saturating_add(rounds), size_bytes.saturating_add(1));
        let start = Instant::now();
        let fault = driver.prepare(&refused, image).await.err();
        looked.push(start.elapsed());
        if fault.is_none_or(|fault| fault.kind != FaultKind::BadImage) {
            return Err("a wrong image was taken".into());
        }
    }
    print("disk and seed of a VM made", made, "< 10");
    print("image's header looked at", looked, "");
    Ok(())
}

fn print(what: &str, mut times: Vec<Duration>, goal: &str) {
    times.sort_unstable();
    for (share, of) in [("p50", 50), ("p99", 99)] {
        let found = times.get(times.len().saturating_mul(of) / 100);
        let ms = found.map_or(0.0, Duration::as_secs_f64) * 1000.0;
        let name = format!("{what}, {share}");
        let value = (ms * 100.0).round() / 100.0;
        let line = serde_json::json!({ "name": name, "value": value, "unit": "ms", "goal": goal });
        println!("{line}");
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(dir), Some(image)) = (args.next(), args.next()) else {
        eprintln!("usage: overlays DIR IMAGE [ROUNDS]");
        return ExitCode::FAILURE;
    };
    let rounds = args.next().and_then(|rounds| rounds.parse().ok());
    let measured = measure(Path::new(&dir), Path::new(&image), rounds.unwrap_or(ROUNDS));
    match measured.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overlays: {error}");
            ExitCode::FAILURE
        }
    }
}
