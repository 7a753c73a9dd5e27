//! QEMU's argument list: a pure function of ids, numbers and file names.
//!
//! No shell, no option string made of text from outside: what comes from a
//! user (names, keys, user-data) is file content and has no way in here. QEMU
//! runs inside the VM's directory, so that our own file names are relative
//! and short.

use serde_json::{Value, json};
use vimana_model::host::Accelerator;
use vimana_model::image::ImageFormat;
use vimana_model::unit::Resources;
use vimana_model::{VmId, VolumeId};

pub const DISK: &str = "disk.qcow2";
/// The name of the writable disk inside a QEMU that has just begun; it changes where
/// the disk moves: see [`next_disk_node`].
pub const DISK_NODE: &str = "disk";
/// The device that the guest has it by.
pub const ROOT_DEVICE: &str = "disk0";
/// The file in a volume's directory.
pub const VOLUME: &str = "volume.qcow2";
/// The controller that volumes are plugged into.
const VOLUME_BUS: &str = "volumes";
pub const SEED: &str = "seed.iso";
pub const QMP_SOCKET: &str = "qmp.sock";
pub const SERIAL_SOCKET: &str = "serial.sock";
/// Where the agent in the guest is talked to, and that end's name.
pub const GUEST_SOCKET: &str = "guest.sock";
pub const GUEST_PORT: &str = "guest";

/// Machine and processor are named with their version, so that a guest meets
/// the same hardware under every QEMU that runs it.
pub const MACHINE: &str = "pc-q35-7.2";
/// What no guest here has to do with: each device costs a guest that goes to another
/// host a part of a millisecond in which it stands still, and so does a description
/// of them all for people who look into the stream.
const WITHOUT: &str = "sata=off,smbus=off,hpet=off,vmport=off,suppress-vmdesc=on";
pub const CPU: &str = "Westmere-v1";
/// MiB of translated code per machine; QEMU's own default is 1 GiB.
const TCG_CACHE_MIB: u32 = 64;

/// What the argument list is made of.
pub struct Launch<'a> {
    pub vm: VmId,
    pub resources: Resources,
    pub accelerator: Accelerator,
    /// The image's path; it only ever appears as a JSON string.
    pub image: &'a str,
    pub format: ImageFormat,
    pub volumes: Vec<Plug>,
    /// Waits for a memory that was saved instead of starting the guest anew.
    pub incoming: bool,
}

/// A volume in a machine: its place says what it is called inside QEMU and
/// where on the bus its guest finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plug {
    pub volume: VolumeId,
    pub format: ImageFormat,
    pub place: u8,
    /// How often it moved to another file while its machine ran.
    pub moves: u32,
    /// Its file, as QEMU finds it from the VM's directory; it only ever appears
    /// as a JSON string.
    pub file: String,
}

impl Plug {
    /// Of its device; QEMU has room for 31 bytes.
    #[must_use]
    pub fn device_name(&self) -> String {
        format!("volume{}", self.place)
    }

    /// Of its node: no two of one device have the same.
    #[must_use]
    pub fn node_name(&self) -> String {
        match self.moves {
            0 => self.device_name(),
            moves => format!("volume{}.{moves}", self.place),
        }
    }

    #[must_use]
    pub fn node(&self) -> Value {
        json!({
            "driver": self.format.name(),
            "node-name": self.node_name(),
            "discard": "unmap",
            "detect-zeroes": "unmap",
            "file": {
                "driver": "file",
                "filename": self.file,
                "discard": "unmap",
            },
        })
    }

    /// SCSI: it can be pulled without the guest's help, and has an id that the
    /// guest can tell it by.
    #[must_use]
    pub fn device(&self) -> Value {
        let id = self.volume.uuid().simple().to_string();
        json!({"driver": "scsi-hd", "id": self.device_name(), "drive": self.node_name(),
               "bus": format!("{VOLUME_BUS}.0"), "channel": 0, "scsi-id": self.place, "lun": 0,
               "serial": id, "device_id": id, "werror": "enospc", "rerror": "report"})
    }
}

/// The arguments of a machine that waits, paused, for `cont` on QMP.
#[must_use]
pub fn machine(launch: &Launch<'_>) -> Vec<String> {
    let mut args = base(launch.accelerator);
    let mut push = |option: &str, value: String| args.extend([option.to_owned(), value]);
    push("-name", launch.vm.to_string());
    push("-uuid", launch.vm.uuid().to_string());
    push("-m", launch.resources.memory_mib.0.to_string());
    push("-smp", launch.resources.vcpus.to_string());
    for node in [disk(launch.image, launch.format), seed()] {
        push("-blockdev", node.to_string());
    }
    push(
        "-object",
        json!({"qom-type": "rng-builtin", "id": "entropy"}).to_string(),
    );
    // `werror=enospc`: a machine whose host has no room stops and is continued
    // later; its guest never sees the error.
    for device in [
        modern(
            json!({"driver": "virtio-blk-pci", "id": ROOT_DEVICE, "drive": DISK_NODE, "bootindex": 0,
                      "discard": true, "write-zeroes": true, "werror": "enospc", "rerror": "report"}),
        ),
        modern(json!({"driver": "virtio-blk-pci", "id": "seed0", "drive": "seed"})),
        modern(json!({"driver": "virtio-rng-pci", "id": "entropy0", "rng": "entropy"})),
        json!({"driver": "isa-serial", "id": "serial0", "chardev": "serial"}),
    ] {
        push("-device", device.to_string());
    }
    // There before any volume is: a bus cannot be plugged in. Behind the
    // others, which keep their places on theirs.
    push(
        "-device",
        modern(json!({"driver": "virtio-scsi-pci", "id": VOLUME_BUS})).to_string(),
    );
    push(
        "-device",
        modern(json!({"driver": "virtio-serial-pci", "id": "ports", "max_ports": 2})).to_string(),
    );
    push(
        "-device",
        json!({"driver": "virtserialport", "id": "guest0", "bus": "ports.0", "nr": 1,
               "chardev": GUEST_PORT, "name": "org.qemu.guest_agent.0"})
        .to_string(),
    );
    for volume in &launch.volumes {
        push("-blockdev", volume.node().to_string());
        push("-device", volume.device().to_string());
    }
    push("-chardev", socket("serial", SERIAL_SOCKET));
    push("-chardev", socket(GUEST_PORT, GUEST_SOCKET));
    push("-chardev", socket("qmp", QMP_SOCKET));
    push("-mon", "chardev=qmp,mode=control".to_owned());
    // Paused until told to run; and when the guest switches itself off, QEMU
    // waits for us, so that it is known even if no agent was there to see it.
    args.extend(["-S", "-no-shutdown"].map(str::to_owned));
    if launch.incoming {
        args.extend(["-incoming", "defer"].map(str::to_owned));
    }
    args
}

/// A virtio device without its legacy interface, from before virtio 1.0: one more thing
/// to restore where a machine arrives.
fn modern(mut device: Value) -> Value {
    if let Some(fields) = device.as_object_mut() {
        fields.insert("disable-legacy".to_owned(), json!("on"));
    }
    device
}

/// The arguments of a probe: a disk, and serial output on stdout.
#[must_use]
pub fn probe(accelerator: Accelerator, memory_mib: u32, disk: &Value) -> Vec<String> {
    let mut args = base(accelerator);
    let mut push = |option: &str, value: String| args.extend([option.to_owned(), value]);
    push("-m", memory_mib.to_string());
    push("-blockdev", disk.to_string());
    for device in [
        json!({"driver": "virtio-blk-pci", "drive": "disk", "bootindex": 0}),
        json!({"driver": "isa-serial", "chardev": "serial"}),
    ] {
        push("-device", device.to_string());
    }
    push("-chardev", "stdio,id=serial,signal=off".to_owned());
    args
}

fn base(accelerator: Accelerator) -> Vec<String> {
    let accelerator = match accelerator {
        Accelerator::Kvm => "kvm".to_owned(),
        Accelerator::Tcg | Accelerator::Simulated | Accelerator::Other => {
            format!("tcg,thread=multi,tb-size={TCG_CACHE_MIB}")
        }
    };
    [
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-nic",
        "none",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine",
        &format!("{MACHINE},{WITHOUT}"),
        "-accel",
        &accelerator,
        "-cpu",
        CPU,
        "-boot",
        "strict=on",
    ]
    .map(str::to_owned)
    .into()
}

/// The writable disk over its read-only image, under the name that it begins with.
#[must_use]
pub fn disk(image: &str, format: ImageFormat) -> Value {
    disk_in(DISK, DISK_NODE, image, format)
}

/// The same in another file, as QEMU finds it from the VM's directory. Formats are
/// said, never guessed, and the chain ends at the image whatever its header says.
#[must_use]
pub fn disk_in(file: &str, node: &str, image: &str, format: ImageFormat) -> Value {
    let image = json!({"driver": "file", "filename": image, "read-only": true});
    let backing = match format {
        ImageFormat::Qcow2 => {
            json!({"driver": "qcow2", "read-only": true, "file": image, "backing": null})
        }
        ImageFormat::Raw => json!({"driver": "raw", "read-only": true, "file": image}),
    };
    json!({
        "driver": "qcow2",
        "node-name": node,
        "discard": "unmap",
        "detect-zeroes": "unmap",
        "file": {"driver": "file", "filename": file, "discard": "unmap"},
        "backing": backing,
    })
}

/// The name after that one: QEMU has the disk in two places while it moves.
#[must_use]
pub fn next_disk_node(node: &str) -> String {
    let moves = node
        .rsplit_once('.')
        .and_then(|(_, moves)| moves.parse().ok());
    format!("{DISK_NODE}.{}", moves.unwrap_or(0_u32).wrapping_add(1))
}

fn seed() -> Value {
    json!({
        "driver": "raw",
        "node-name": "seed",
        "read-only": true,
        "file": {"driver": "file", "filename": SEED, "read-only": true},
    })
}

/// `-chardev` takes no JSON; these values are our own constants.
fn socket(id: &str, path: &str) -> String {
    format!("socket,id={id},path={path},server=on,wait=off")
}

#[cfg(test)]
mod tests {
    use vimana_driver::{ImageRef, IncarnationSpec, Seed};
    use vimana_model::ImageId;
    use vimana_model::name::DatastoreName;
    use vimana_model::ssh_key::SshKeys;
    use vimana_model::unit::MiB;
    use vimana_model::user_data::UserData;

    use super::*;

    fn launch(accelerator: Accelerator, format: ImageFormat) -> Launch<'static> {
        Launch {
            vm: VmId::from_parts(1_700_000_000_000, [7; 10]),
            resources: Resources {
                vcpus: 2,
                memory_mib: MiB(512),
                disk_mib: MiB(4096),
            },
            accelerator,
            image: "/images/a,b\"c.qcow2",
            format,
            volumes: vec![Plug {
                volume: VolumeId::from_parts(1_700_000_000_000, [8; 10]),
                format: ImageFormat::Qcow2,
                place: 3,
                moves: 0,
                file: "../vol_018bcfe5680078088808080808080808/volume.qcow2".to_owned(),
            }],
            incoming: false,
        }
    }

    fn shown(args: &[String]) -> String {
        args.join("\n").replace("\n-", "\n\n-")
    }

    #[test]
    fn machine_on_qcow2_with_tcg() {
        let args = machine(&launch(Accelerator::Tcg, ImageFormat::Qcow2));
        insta::assert_snapshot!(shown(&args));
    }

    #[test]
    fn machine_on_raw_with_kvm() {
        let args = machine(&launch(Accelerator::Kvm, ImageFormat::Raw));
        insta::assert_snapshot!(shown(&args));
    }

    #[test]
    fn saved_machine_differs_in_nothing_but_where_its_memory_comes_from() {
        let mut launch = launch(Accelerator::Tcg, ImageFormat::Raw);
        let fresh = machine(&launch);
        launch.incoming = true;
        let incoming = machine(&launch);
        assert_eq!(incoming[..fresh.len()], fresh);
        assert_eq!(incoming[fresh.len()..], ["-incoming", "defer"]);
    }

    #[test]
    fn no_accelerator_falls_back_silently() {
        for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
            let args = machine(&launch(accelerator, ImageFormat::Raw));
            assert_eq!(args.iter().filter(|a| *a == "-accel").count(), 1);
            assert!(!args.iter().any(|a| a.contains("kvm:")));
        }
    }

    #[test]
    fn image_path_round_trips() {
        let launch = launch(Accelerator::Tcg, ImageFormat::Raw);
        let args = machine(&launch);
        let node = args.iter().find(|a| a.contains("a,b")).unwrap();
        let node: Value = serde_json::from_str(node).unwrap();
        assert_eq!(node["backing"]["file"]["filename"], launch.image);
    }

    #[test]
    fn disk_has_another_name_wherever_it_moves() {
        let next = next_disk_node(DISK_NODE);
        assert_eq!(next, "disk.1");
        assert_eq!(next_disk_node(&next), "disk.2");
    }

    #[test]
    fn nothing_of_the_seed_is_in_the_arguments() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ2rGOwkGpQ8bDJcCk3vYrdcDnVK6tA0gGwXz1iHx9r x,readonly=off";
        let spec = IncarnationSpec {
            vm_id: VmId::from_parts(1, [1; 10]),
            run_epoch: 1,
            resources: Resources::default(),
            datastore: DatastoreName::local(),
            image: ImageRef {
                id: ImageId::from_parts(1, [2; 10]),
                format: ImageFormat::Raw,
                size_bytes: 1,
                sha256: String::new(),
            },
            seed: Seed {
                host_name: "sentinel-host".to_owned(),
                ssh_key: Some(SshKeys::new(key).unwrap()),
                user_data: Some(UserData::new("#!sentinel-data").unwrap()),
            },
        };
        let args = machine(&crate::boot::launch(
            &spec,
            "image",
            Accelerator::Tcg,
            Vec::new(),
        ));
        for arg in &args {
            for secret in ["sentinel", "AAAAC3", "readonly=off"] {
                assert!(!arg.contains(secret), "{arg}");
            }
        }
    }
}
