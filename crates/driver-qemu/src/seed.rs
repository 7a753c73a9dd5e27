//! The NoCloud disk: a guest's first configuration as a tiny ISO 9660 image.
//!
//! Plain ISO 9660 (ECMA-119) without extensions. The file names are in lower
//! case and without a version, which the standard does not allow and every
//! reader passes on as it is: `meta-data`, `network-config` and `user-data`, as
//! cloud-init wants.

use serde_json::{Value, json};
use vimana_driver::Seed;
use vimana_model::VmId;
use vimana_model::ssh_key::{SshKey, SshKeys};

const SECTOR: usize = 2048;
/// Sectors: 16 unused, volume descriptor, its end, two path tables, the root.
const DESCRIPTOR: usize = 16;
const END: usize = 17;
const PATHS_LE: usize = 18;
const PATHS_BE: usize = 19;
const ROOT: usize = 20;
const FILES: usize = 21;
/// Empty sectors at the end. Readers look into the first 68 KiB of a disk
/// before they say what it is, and read ahead; writers have always padded.
const PADDING: usize = 150;

const VOLUME: &str = "cidata";
const DIRECTORY: u8 = 2;

/// The bytes of the seed disk.
#[must_use]
pub fn image(vm: VmId, seed: &Seed) -> Vec<u8> {
    let user_data = match &seed.user_data {
        Some(data) => data.as_str(),
        None => "#cloud-config\n{}\n",
    };
    iso(&[
        ("meta-data", meta_data(vm, seed).as_bytes()),
        ("network-config", network_config().as_bytes()),
        ("user-data", user_data.as_bytes()),
    ])
}

/// YAML whose values are JSON, a subset of it: nothing is quoted by hand.
fn meta_data(vm: VmId, seed: &Seed) -> String {
    let keys = seed.ssh_key.iter().flat_map(SshKeys::iter);
    let keys: Vec<&str> = keys.map(SshKey::as_str).collect();
    yaml(&[
        ("instance-id", json!(vm)),
        ("local-hostname", json!(seed.host_name)),
        ("public-keys", json!(keys)),
    ])
}

/// Networking as netplan has it (version 2): an address by DHCP for whatever
/// Ethernet there is, under any of the names that guests give it. A guest
/// without any does not wait for one.
fn network_config() -> String {
    let device = json!({"match": {"name": "e*"}, "dhcp4": true, "optional": true});
    yaml(&[
        ("version", json!(2)),
        ("ethernets", json!({ "ethernet": device })),
    ])
}

fn yaml(fields: &[(&str, Value)]) -> String {
    let lines = fields.iter();
    lines
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect()
}

/// An image with these files, sorted by name, in its root.
fn iso(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut image = vec![0; FILES * SECTOR];
    let mut root = Vec::new();
    root.extend(entry(&[0], ROOT, SECTOR, DIRECTORY));
    root.extend(entry(&[1], ROOT, SECTOR, DIRECTORY));
    for (name, content) in files {
        let sector = image.len() / SECTOR;
        root.extend(entry(name.as_bytes(), sector, content.len(), 0));
        image.extend_from_slice(content);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    }
    image.resize(image.len() + PADDING * SECTOR, 0);
    let sectors = image.len() / SECTOR;
    put(&mut image, DESCRIPTOR, &descriptor(sectors));
    put(&mut image, END, b"\xffCD001\x01");
    put(&mut image, PATHS_LE, &path(u32::to_le_bytes, [1, 0]));
    put(&mut image, PATHS_BE, &path(u32::to_be_bytes, [0, 1]));
    put(&mut image, ROOT, &root);
    image
}

fn put(image: &mut [u8], sector: usize, bytes: &[u8]) {
    for (to, from) in image.iter_mut().skip(sector * SECTOR).zip(bytes) {
        *to = *from;
    }
}

/// The primary volume descriptor (ECMA-119, 8.4).
fn descriptor(sectors: usize) -> Vec<u8> {
    let mut d = Vec::with_capacity(SECTOR);
    d.extend(b"\x01CD001\x01\0");
    d.extend(padded("LINUX", 32));
    d.extend(padded(VOLUME, 32));
    d.extend([0; 8]);
    d.extend(both32(sectors));
    d.extend([0; 32]);
    d.extend(both16(1)); // volumes in the set
    d.extend(both16(1)); // number of this one
    d.extend(both16(SECTOR));
    d.extend(both32(PATH_BYTES));
    d.extend(u32_of(PATHS_LE).to_le_bytes());
    d.extend([0; 4]);
    d.extend(u32_of(PATHS_BE).to_be_bytes());
    d.extend([0; 4]);
    d.extend(entry(&[0], ROOT, SECTOR, DIRECTORY));
    d.extend(padded("", 4 * 128 + 3 * 37)); // set, publisher, preparer, ...
    for _ in 0..4 {
        d.extend(b"0000000000000000\0"); // no date
    }
    d.extend([1, 0]);
    d
}

/// The one record of a path table (9.4): the root.
const PATH_BYTES: usize = 10;
fn path(order: fn(u32) -> [u8; 4], parent: [u8; 2]) -> Vec<u8> {
    let mut record = vec![1, 0];
    record.extend(order(u32_of(ROOT)));
    record.extend(parent);
    record.extend([0, 0]);
    record
}

/// A directory record (9.1).
fn entry(name: &[u8], sector: usize, bytes: usize, flags: u8) -> Vec<u8> {
    let mut e = vec![0, 0];
    e.extend(both32(sector));
    e.extend(both32(bytes));
    e.extend([70, 1, 1, 0, 0, 0, 0]); // 1970-01-01 00:00:00 UTC
    e.extend([flags, 0, 0]);
    e.extend(both16(1));
    e.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    e.extend(name);
    e.resize(e.len().next_multiple_of(2), 0);
    let length = u8::try_from(e.len()).unwrap_or(u8::MAX);
    if let Some(first) = e.first_mut() {
        *first = length;
    }
    e
}

fn padded(text: &str, width: usize) -> Vec<u8> {
    format!("{text:width$}").into_bytes()
}

/// Everything here is far below 4 GiB: user-data is at most 64 KiB.
fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Numbers are stored in both byte orders.
fn both32(n: usize) -> [u8; 8] {
    let n = u64::from(u32_of(n));
    (n | (n.swap_bytes())).to_le_bytes()
}

fn both16(n: usize) -> [u8; 4] {
    let n = u32_of(n) & 0xffff;
    (n | n.swap_bytes()).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use vimana_model::user_data::UserData;

    use super::*;

    fn vm() -> VmId {
        VmId::from_parts(1_700_000_000_000, [7; 10])
    }

    #[test]
    fn numbers_are_in_both_orders() {
        assert_eq!(both32(0x0102_0304), [4, 3, 2, 1, 1, 2, 3, 4]);
        assert_eq!(both16(0x0102), [2, 1, 1, 2]);
    }

    #[test]
    fn meta_data_is_yaml_with_json_values() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ2rGOwkGpQ8bDJcCk3vYrdcDnVK6tA0gGwXz1iHx9r a \"b\": #c";
        let seed = Seed {
            host_name: "web-1".to_owned(),
            ssh_key: Some(SshKeys::new(&format!("{key}\n{key} two")).unwrap()),
            user_data: None,
        };
        insta::assert_snapshot!(meta_data(vm(), &seed));
    }

    #[test]
    fn network_config_asks_for_an_address_wherever_there_is_ethernet() {
        insta::assert_snapshot!(network_config());
    }

    #[test]
    fn structure_is_where_the_standard_wants_it() {
        let seed = Seed {
            host_name: "web-1".to_owned(),
            ssh_key: None,
            user_data: Some(UserData::new(format!("#!{}", "x".repeat(5000))).unwrap()),
        };
        let iso = image(vm(), &seed);
        assert_eq!(iso.len(), (FILES + 2 + 3 + PADDING) * SECTOR);
        let pvd = &iso[DESCRIPTOR * SECTOR..][..SECTOR];
        assert_eq!(&pvd[..8], b"\x01CD001\x01\0");
        assert_eq!(&pvd[40..72], padded("cidata", 32));
        assert_eq!(pvd[80..88], both32(iso.len() / SECTOR));
        assert_eq!(pvd[156], 34, "the root's record");
        assert_eq!(&pvd[881..883], [1, 0], "the structure's version");
        let root = &iso[ROOT * SECTOR..][..SECTOR];
        let mut names = Vec::new();
        let mut at = 0;
        while root[at] != 0 {
            let name = &root[at + 33..][..usize::from(root[at + 32])];
            names.push(String::from_utf8_lossy(name).into_owned());
            at += usize::from(root[at]);
        }
        assert_eq!(
            names,
            ["\0", "\u{1}", "meta-data", "network-config", "user-data"]
        );
        assert!(iso[(FILES + 2) * SECTOR..].starts_with(b"#!xxx"));
    }

    #[test]
    fn absent_user_data_is_an_empty_cloud_config() {
        let seed = Seed {
            host_name: "web-1".to_owned(),
            ssh_key: None,
            user_data: None,
        };
        assert!(image(vm(), &seed)[(FILES + 2) * SECTOR..].starts_with(b"#cloud-config\n{}\n\0"));
    }
}
