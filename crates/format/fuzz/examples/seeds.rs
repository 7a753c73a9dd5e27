//! Makes the inputs to start from: what `qemu-img` creates, and what of it is
//! refused. Goes where `cargo fuzz` looks for a target's corpus.

#[path = "../../tests/it/made.rs"]
mod made;

use std::fs;
use std::path::Path;

use vimana_format::Content;
use vimana_format_fuzz::{Image, identified};

use self::made::{PLAIN, created, qemu_img};

fn main() {
    let mut made = 0;
    for (_, arguments) in PLAIN {
        let (dir, _file) = created(arguments);
        made += kept(&arguments.join(" "), &dir.path().join("image"));
    }
    for (name, arguments) in [
        ("snapshot", &["snapshot", "-c", "before", "image"][..]),
        ("bitmap", &["bitmap", "--add", "image", "backup"]),
        (
            "backing",
            &["rebase", "-u", "-b", "base", "-F", "raw", "image"],
        ),
    ] {
        let (dir, _file) = created(&["-f", "qcow2"]);
        qemu_img(dir.path(), arguments);
        made += kept(name, &dir.path().join("image"));
    }
    let (dir, _file) = created(&["-f", "vmdk"]);
    let child = [
        "create", "-q", "-f", "vmdk", "-b", "image", "-F", "vmdk", "child",
    ];
    qemu_img(dir.path(), &child);
    made += kept("child", &dir.path().join("child"));
    let data = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "data_file=raw",
        "data",
        "1M",
    ];
    qemu_img(dir.path(), &data);
    made += kept("data file", &dir.path().join("data"));
    let flat = [
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        "subformat=monolithicFlat",
        "flat",
        "1M",
    ];
    qemu_img(dir.path(), &flat);
    made += kept("flat", &dir.path().join("flat"));
    println!("{made} seeds");
}

/// Keeps a file as a seed of every target it is for; says of how many.
fn kept(name: &str, file: &Path) -> usize {
    let input = Image::encoded(&fs::read(file).unwrap());
    let own = match identified(&Image::decoded(&input)) {
        Content::Qcow2 => Some("qcow2"),
        Content::Vdi => Some("vdi"),
        Content::Vhdx => Some("vhdx"),
        Content::Vmdk => Some("vmdk"),
        _ => None,
    };
    let targets = ["identified"].into_iter().chain(own);
    for target in targets.clone() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target);
        fs::create_dir_all(&corpus).unwrap();
        fs::write(corpus.join(name.replace([' ', '='], "-")), &input).unwrap();
    }
    targets.count()
}
