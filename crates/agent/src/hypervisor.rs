//! Opens the driver that was asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vimana_agent::Enrolment;
use vimana_driver::{Fault, HostDriver};
use vimana_driver_qemu::{
    AcceleratorSetting, Credentials, CredentialsSource, ProbeImage, QemuConfig, QemuDriver,
};
use vimana_driver_sim::{SimDriver, SimHost};
use vimana_model::HostId;
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;

use crate::args::{Driver, ServeArgs};

/// Where the QEMU driver keeps its machines.
const MACHINES: &str = "machines";

pub async fn open(
    args: &ServeArgs,
    host_id: HostId,
    data_dir: &Path,
    enrolment: &Arc<Enrolment>,
) -> Result<Arc<dyn HostDriver>, Fault> {
    match args.driver {
        Driver::Qemu => {
            let mut config = config(data_dir, args.qemu.as_deref());
            config.accelerator = args.accel;
            config.probe_image = args.probe_image.as_deref().map(probe_image);
            config.datastores = datastores(args).collect();
            config.owner = host_id.to_string();
            config.migration.address = args.migration_address();
            config.migration.ports = args.migration_ports.0.clone();
            if args.migration_plaintext {
                tracing::warn!("machines go to other hosts and come from them unencrypted");
            } else {
                let shown = Arc::clone(enrolment);
                config.migration.tls = Some(CredentialsSource::new(move || {
                    let [authority, certificate, key] = shown.pems()?;
                    Some(Credentials {
                        authority,
                        certificate,
                        key,
                    })
                }));
            }
            Ok(Arc::new(QemuDriver::open(config).await?))
        }
        Driver::Sim => {
            let host = SimHost::new();
            for (name, _) in datastores(args) {
                host.add_datastore(name);
            }
            Ok(Arc::new(SimDriver::new(host)))
        }
    }
}

fn datastores(args: &ServeArgs) -> impl Iterator<Item = (DatastoreName, PathBuf)> {
    let all = args.datastore.iter();
    all.map(|datastore| (datastore.name.clone(), datastore.path.clone()))
}

/// Opens the QEMU driver to end machines and to start none.
pub async fn open_to_stop(data_dir: &Path, qemu: Option<&Path>) -> Result<QemuDriver, Fault> {
    let mut config = config(data_dir, qemu);
    // Nothing will be started: a probe would be time lost.
    config.accelerator = AcceleratorSetting::Tcg;
    QemuDriver::open(config).await
}

fn config(data_dir: &Path, qemu: Option<&Path>) -> QemuConfig {
    let mut config = QemuConfig::new(data_dir.join(MACHINES));
    if let Some(qemu) = qemu {
        config.qemu = qemu.to_owned();
    }
    config
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
