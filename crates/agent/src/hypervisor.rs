//! Opens the driver that was asked for.

use std::path::Path;
use std::sync::Arc;

use vimana_driver::{Fault, HostDriver};
use vimana_driver_qemu::{ProbeImage, QemuConfig, QemuDriver};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_model::image::ImageFormat;

use crate::args::{Args, Driver};

/// Where the QEMU driver keeps its machines.
const MACHINES: &str = "machines";

pub async fn open(args: &Args, data_dir: &Path) -> Result<Arc<dyn HostDriver>, Fault> {
    match args.driver {
        Driver::Qemu => {
            let mut config = QemuConfig::new(data_dir.join(MACHINES));
            config.accelerator = args.accel;
            config.probe_image = args.probe_image.as_deref().map(probe_image);
            if let Some(qemu) = &args.qemu {
                config.qemu.clone_from(qemu);
            }
            Ok(Arc::new(QemuDriver::open(config).await?))
        }
        Driver::Sim => Ok(Arc::new(SimDriver::new(SimHost::new()))),
    }
}

fn probe_image(path: &Path) -> ProbeImage {
    let is_qcow2 = path.extension().is_some_and(|end| end == "qcow2");
    ProbeImage {
        path: path.to_owned(),
        format: if is_qcow2 {
            ImageFormat::Qcow2
        } else {
            ImageFormat::Raw
        },
    }
}
