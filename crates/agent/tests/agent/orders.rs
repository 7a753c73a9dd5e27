//! What a server orders.

use sha2::{Digest as _, Sha256};
use vimana_driver::{DiskPlan, ImageRef, IncarnationSpec, Seed};
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::{MiB, Resources};
use vimana_model::{ImageId, OperationId, VmId};
use vimana_protocol::agent::{Command, CommandRef, Outcome, Work};

pub const RESOURCES: Resources = Resources {
    vcpus: 1,
    memory_mib: MiB(128),
    disk_mib: MiB(64),
};

/// An image of these bytes.
pub fn image_of(bytes: &[u8]) -> ImageRef {
    let digest = Sha256::digest(bytes);
    ImageRef {
        id: ImageId::from_parts(1, digest[..10].try_into().unwrap()),
        format: ImageFormat::Raw,
        size_bytes: bytes.len() as u64,
        sha256: format!("{digest:x}"),
    }
}

pub fn vm(n: u8) -> VmId {
    VmId::from_parts(u64::from(n), [n; 10])
}

/// Step `step` of one operation on `vm`, in its first run.
pub fn command(vm_id: VmId, step: u32, work: Work) -> Command {
    Command {
        command: CommandRef {
            operation_id: OperationId::from_parts(
                1,
                vm_id.uuid().as_bytes()[6..].try_into().unwrap(),
            ),
            step,
            undo: false,
            attempt: 1,
        },
        vm_id,
        run_epoch: 1,
        claim_epoch: 1,
        work,
    }
}

pub fn boot(vm_id: VmId, step: u32) -> Command {
    let resources = RESOURCES;
    command(vm_id, step, Work::Boot { resources })
}

pub fn prepare(vm_id: VmId, step: u32, image: &ImageRef) -> Command {
    let spec = Box::new(IncarnationSpec {
        vm_id,
        run_epoch: 1,
        resources: RESOURCES,
        datastore: DatastoreName::local(),
        image: image.clone(),
        seed: Seed {
            host_name: "guest".to_owned(),
            ssh_key: None,
            user_data: None,
        },
    });
    command(vm_id, step, Work::Prepare { spec })
}

/// Of a machine that goes as a whole.
pub const UPLOAD: Work = Work::Upload {
    disks: DiskPlan {
        shares_root: false,
        volumes: Vec::new(),
        snapshots: Vec::new(),
    },
};

pub const OK: Outcome = Outcome::Ok {
    note: None,
    saved: None,
    backup: None,
    endpoint: None,
    sent: None,
    place: None,
};
