//! `qemu-img`, for disks that no QEMU has open. It is told formats and files
//! as JSON, which no text can be taken for.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;
use vimana_driver::{Fault, FaultKind};
use vimana_model::image::ImageFormat;

use crate::argv::VOLUME;
use crate::limits::{IMG_TIMEOUT, REASON_CHARS};

/// Copies an image into a new volume file of `dir`.
pub async fn copy(
    image: &Path,
    format: ImageFormat,
    dir: &Path,
    within: Duration,
) -> Result<(), Fault> {
    let unnamed = || Fault::new(FaultKind::Host, "the image's place has no usable name");
    let absolute = std::path::absolute(image).map_err(|_| unnamed())?;
    let path = absolute.to_str().ok_or_else(unnamed)?;
    let file = json!({"driver": "file", "filename": path, "read-only": true});
    // It ends at the image, whatever its header says.
    let from = match format {
        ImageFormat::Qcow2 => json!({"driver": "qcow2", "file": file, "backing": null}),
        ImageFormat::Raw => json!({"driver": "raw", "file": file}),
    };
    let args = ["convert", "-q", "-O", "qcow2", &named(&from), VOLUME];
    run(dir, &args, within).await.map(drop)
}

/// Makes the volume file of `dir` larger; fine if it has that size.
pub async fn resize(dir: &Path, bytes: u64, within: Duration) -> Result<(), Fault> {
    let args = ["resize", "-q", &named(&disk(VOLUME)), &bytes.to_string()];
    run(dir, &args, within).await.map(drop)
}

/// What is done to a snapshot inside a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Create,
    Apply,
    Delete,
}

/// Does something to a snapshot inside the disk `name` of `dir`.
pub async fn snapshot(dir: &Path, name: &str, deed: Deed, tag: &str) -> Result<(), Fault> {
    let flag = match deed {
        Deed::Create => "-c",
        Deed::Apply => "-a",
        Deed::Delete => "-d",
    };
    let args = ["snapshot", "-q", flag, tag, &named(&disk(name))];
    run(dir, &args, IMG_TIMEOUT).await.map(drop)
}

/// The snapshots inside the disk `name` of `dir`.
pub async fn snapshots(dir: &Path, name: &str) -> Result<Vec<String>, Fault> {
    Ok(names_in(info(dir, name).await?.get("snapshots")))
}

/// The bitmaps inside the disk `name` of `dir`.
pub async fn bitmaps(dir: &Path, name: &str) -> Result<Vec<String>, Fault> {
    let info = info(dir, name).await?;
    let list = info.pointer("/format-specific/data/bitmaps");
    Ok(names_in(list))
}

pub async fn remove_bitmap(dir: &Path, name: &str, bitmap: &str) -> Result<(), Fault> {
    let args = ["bitmap", "--remove", &named(&disk(name)), bitmap];
    run(dir, &args, IMG_TIMEOUT).await.map(drop)
}

async fn info(dir: &Path, name: &str) -> Result<Value, Fault> {
    let args = ["info", "--output=json", &named(&disk(name))];
    let said = run(dir, &args, IMG_TIMEOUT).await?;
    serde_json::from_slice(&said).map_err(|_| {
        let message = "qemu-img said something unexpected";
        Fault::new(FaultKind::Hypervisor, message)
    })
}

fn names_in(list: Option<&Value>) -> Vec<String> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.get("name")?.as_str());
    names.map(str::to_owned).collect()
}

/// A disk of ours by itself, without what it lies over.
fn disk(name: &str) -> Value {
    let file = json!({"driver": "file", "filename": name});
    json!({"driver": "qcow2", "file": file, "backing": null})
}

fn named(node: &Value) -> String {
    format!("json:{node}")
}

async fn run(dir: &Path, args: &[&str], within: Duration) -> Result<Vec<u8>, Fault> {
    let asked = Command::new("qemu-img")
        .args(args.iter().map(OsString::from))
        .current_dir(dir)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let did = timeout(within, asked).await.map_err(|_| {
        let message = format!("qemu-img did not end within {} s", within.as_secs());
        Fault::new(FaultKind::Hypervisor, message)
    })?;
    let did = did.map_err(|error| Fault::io("running qemu-img", &error))?;
    if did.status.success() {
        return Ok(did.stdout);
    }
    let said = String::from_utf8_lossy(&did.stderr);
    if said.contains("No space left on device") {
        let message = "working on the volume: the host's disk is full";
        return Err(Fault::new(FaultKind::NoSpace, message));
    }
    tracing::warn!(%said, "qemu-img failed");
    let last = said.lines().last().unwrap_or("it failed");
    // A message for people has no path.
    let reason = last.rsplit(": ").next().unwrap_or(last);
    let reason: String = reason.chars().take(REASON_CHARS).collect();
    Err(Fault::new(
        FaultKind::Hypervisor,
        format!("qemu-img refused: {reason}"),
    ))
}
