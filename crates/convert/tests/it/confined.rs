//! What a confined process cannot do, tried by one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use vimana_convert::{Bounds, confine};

use crate::qemu_img;

/// Runs in a process of its own, where nothing else is confined with it.
#[test]
#[ignore = "run by the test below"]
fn inside() {
    let dir = std::env::var("VIMANA_TEST_DIR").unwrap();
    let at = |name: &str| Path::new(&dir).join(name);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    confine(&Bounds {
        input: &[at("input")],
        output: &at("output"),
        max_output_bytes: 1 << 20,
        max_memory_bytes: 1 << 30,
        max_cpu_seconds: 60,
    })
    .unwrap();

    let mut text = String::new();
    File::open(at("input"))
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "mine");
    File::create(at("output"))
        .unwrap()
        .write_all(b"done")
        .unwrap();

    for secret in [
        "/etc/passwd",
        "/etc/shadow",
        "/proc/self/environ",
        "/proc/1/cmdline",
    ] {
        assert!(File::open(secret).is_err(), "{secret}");
    }
    assert!(File::open(at("other")).is_err());
    assert!(OpenOptions::new().write(true).open(at("input")).is_err());
    assert!(File::create(at("new")).is_err());
    assert!(fs::remove_file(at("input")).is_err());
    assert!(fs::read_dir(&dir).is_err());
    assert!(TcpStream::connect(address).is_err());
    assert!(UdpSocket::bind("127.0.0.1:0").is_err());
    assert!(UnixStream::pair().is_err());
    let mut much = Vec::<u8>::new();
    assert!(much.try_reserve_exact(2 << 30).is_err());
}

#[test]
fn only_the_two_files_are_left() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("input"), "mine").unwrap();
    fs::write(dir.path().join("output"), "").unwrap();
    fs::write(dir.path().join("other"), "not mine").unwrap();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "confined::inside", "--ignored", "--nocapture"])
        .env("VIMANA_TEST_DIR", dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(said.contains("1 passed"), "{said}");
    assert_eq!(
        fs::read_to_string(dir.path().join("output")).unwrap(),
        "done"
    );
}

fn convert(dir: &Path, format: &str, input: &str, max_bytes: u64) -> (bool, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_vimana-convert"))
        .current_dir(dir)
        .args([
            "--format",
            format,
            "--max-bytes",
            &max_bytes.to_string(),
            input,
            "--output",
            "output",
        ])
        .output()
        .unwrap();
    (
        ran.status.success(),
        String::from_utf8_lossy(&ran.stderr).into_owned(),
    )
}

#[test]
fn images_of_others_become_qcow2() {
    for (format, options) in [
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vdi", "static=off"),
        ("vhdx", "subformat=dynamic"),
    ] {
        let dir = TempDir::new().unwrap();
        let at = dir.path();
        let mut bytes: Vec<u8> = (0..3 << 20)
            .map(|n: u32| n.to_le_bytes()[1] ^ 0x5a)
            .collect();
        bytes.resize(20 << 20, 0);
        fs::write(at.join("raw"), bytes).unwrap();
        qemu_img(
            at,
            &[
                "convert", "-f", "raw", "-O", format, "-o", options, "raw", "other",
            ],
        );
        let (done, said) = convert(at, format, "other", 1 << 30);
        assert!(done, "{format} {options}: {said}");
        qemu_img(
            at,
            &["compare", "-f", "raw", "-F", "qcow2", "raw", "output"],
        );
    }
}

#[test]
fn what_names_other_files_or_grows_too_large_comes_to_nothing() {
    let dir = TempDir::new().unwrap();
    let at = dir.path();
    fs::write(at.join("secret"), vec![7; 1 << 20]).unwrap();
    // A descriptor alone: the header check refuses it; here it does no harm either.
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
        createType=\"monolithicFlat\"\nRW 2048 FLAT \"secret\" 0\n\
        ddb.adapterType = \"ide\"\nddb.geometry.cylinders = \"2\"\n\
        ddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\n";
    fs::write(at.join("flat"), descriptor).unwrap();
    qemu_img(at, &["info", "-f", "vmdk", "flat"]);
    let (done, said) = convert(at, "vmdk", "flat", 1 << 30);
    assert!(!done && said.contains("secret"), "{said}");

    fs::remove_file(at.join("output")).unwrap();
    let noise: Vec<u8> = (0..1_u32 << 22)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    fs::write(at.join("raw"), noise).unwrap();
    qemu_img(at, &["convert", "-f", "raw", "-O", "vdi", "raw", "large"]);
    let (done, _said) = convert(at, "vdi", "large", 1 << 20);
    assert!(!done);
    assert!(fs::metadata(at.join("output")).unwrap().len() <= 1 << 20);
}
