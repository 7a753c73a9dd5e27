//! Who the other host is: certificates of the installation's authority, for both
//! the memory and the disk.

use std::io;
use std::path::Path;

use serde_json::json;
use vimana_driver::{Fault, FaultKind};
use vimana_model::HostId;

use crate::config::Credentials;
use crate::host::{Host, blocking};
use crate::qmp::{Qmp, QmpError};
use crate::record::{self, Scratch};

/// The object with the certificates, and the one that knows who may come.
pub const CREDENTIALS: &str = "journey-tls";
pub const PEER: &str = "journey-peer";
/// Where QEMU reads the certificates from: a directory in the VM's.
const DIR: &str = "tls";

/// Which end of the connection this host is.
#[derive(Clone, Copy)]
pub enum End {
    /// That of the target, to which the host comes that may.
    Server {
        from: HostId,
    },
    Client,
}

/// Gives QEMU this host's certificate, if hosts have any: whether they do.
pub async fn provide(host: &Host, dir: &Path, qmp: &Qmp, end: End) -> Result<bool, Fault> {
    let Some(source) = &host.config.migration.tls else {
        return Ok(false);
    };
    let shown = source.get().ok_or_else(|| {
        let message = "this host has no certificate yet";
        Fault::new(FaultKind::Hypervisor, message)
    })?;
    let (name, endpoint) = match end {
        End::Server { .. } => ("server", "server"),
        End::Client => ("client", "client"),
    };
    let place = Scratch(dir.join(DIR));
    let there = place.0.clone();
    let copied = blocking(move || {
        let copied = copy(&shown, &there, name);
        copied.map_err(|error| Fault::io("handing over this host's certificate", &error))
    });
    copied.await?;
    let given = async {
        withdraw(qmp).await?;
        // It reads the files now, and never again.
        qmp.object_add(json!({
            "qom-type": "tls-creds-x509", "id": CREDENTIALS, "dir": DIR,
            "endpoint": endpoint, "verify-peer": true,
        }))
        .await?;
        if let End::Server { from } = end {
            let identity = format!("CN={from}");
            qmp.object_add(json!({"qom-type": "authz-simple", "id": PEER, "identity": identity}))
                .await?;
        }
        Ok(())
    };
    let given: Result<(), QmpError> = given.await;
    given.map_err(|error| {
        let message = format!("this host's certificate cannot be used: {error}");
        Fault::new(FaultKind::Hypervisor, message)
    })?;
    let gone = blocking(move || {
        let gone = place.remove();
        gone.map_err(|error| Fault::io("removing a copy of this host's key", &error))
    });
    gone.await?;
    Ok(true)
}

/// Takes it away again, when nothing uses it any more; fine if there is none.
pub async fn withdraw(qmp: &Qmp) -> Result<(), QmpError> {
    qmp.object_del(CREDENTIALS).await?;
    qmp.object_del(PEER).await
}

/// Removes what an interrupted call left: QEMU has read it, or never will. Blocks.
pub fn tidy(dir: &Path) -> io::Result<()> {
    Scratch(dir.join(DIR)).remove()
}

/// Under the names that QEMU knows. Blocks.
fn copy(shown: &Credentials, dir: &Path, end: &str) -> io::Result<()> {
    Scratch(dir.to_owned()).remove()?;
    record::make_dir(dir)?;
    for (text, name) in [
        (&shown.authority, "ca-cert.pem".to_owned()),
        (&shown.certificate, format!("{end}-cert.pem")),
        (&shown.key, format!("{end}-key.pem")),
    ] {
        record::write_file(&dir.join(name), text.as_bytes())?;
    }
    Ok(())
}
