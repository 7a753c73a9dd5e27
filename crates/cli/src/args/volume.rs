//! What can be asked of volumes and snapshots.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use vimana_model::image::ImageFormat;

use super::{Json, Timeout};

const VIA_IMAGE_HELP: &str = "\
An image is made of the volume on the way, and removed at the end. What stays of it when the command is interrupted, the command says at
its beginning.";

const UPLOAD_HELP: &str = "\
An image is made of the file on the way, `upload-of-NAME`; it goes to the trash at the end, and stays there until the volume is attached.
Interrupted while it is sent, the same command goes on where it was.";

#[derive(Subcommand)]
pub enum Volume {
    /// List the volumes
    List(Json),
    /// Show one volume
    Show(VolumeShown),
    /// Make a volume; its bytes come to be where it is first attached
    Create(CreateVolume),
    /// Make a volume of a file of this machine: a raw or qcow2 image, packed or
    /// not, or one of another hypervisor
    #[command(after_help = UPLOAD_HELP)]
    Upload(UploadVolume),
    /// Give a volume to a VM, at once where that runs
    Attach(AttachVolume),
    /// Take a volume from its VM; it stays
    Detach(DetachVolume),
    /// Make a volume larger, whether a VM has it or not
    Grow(GrowVolume),
    /// Bring a volume to another datastore of its host; its VM runs on
    Move(MoveVolume),
    /// Say whether a volume goes with its VM
    Change(ChangeVolume),
    /// Bring what is on a volume at one instant to this machine, attached or not
    #[command(after_help = VIA_IMAGE_HELP)]
    Download(DownloadVolume),
    /// Make another volume of what is on one at one instant, attached or not
    Clone(CloneVolume),
    /// Delete a volume with what is on it
    Delete(DeleteVolume),
    /// What happened to a volume, and who did it
    Timeline(VolumeShown),
}

#[derive(Args)]
pub struct WhichVolume {
    /// Name or id of the volume
    #[arg(value_name = "VOLUME")]
    pub volume: String,
}

#[derive(Args)]
pub struct VolumeShown {
    #[command(flatten)]
    pub which: WhichVolume,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct CreateVolume {
    /// What the volume is to be called
    pub name: String,
    /// Its size in MiB
    #[arg(long, value_name = "N")]
    pub size_mib: u64,
    /// An image that it begins as a copy of
    #[arg(long)]
    pub image: Option<String>,
    #[command(flatten)]
    pub terms: VolumeTerms,
    #[command(flatten)]
    pub json: Json,
}

/// What is said of a new volume however it comes to be.
#[derive(Args)]
pub struct VolumeTerms {
    /// The datastore of its host that it is made in [default: local]
    #[arg(long, value_name = "NAME")]
    pub datastore: Option<String>,
    /// Delete it together with the VM that has it
    #[arg(long)]
    pub delete_with_vm: bool,
}

#[derive(Args)]
pub struct UploadVolume {
    /// The file
    pub file: PathBuf,
    /// What the volume is to be called
    pub name: String,
    /// Its size in MiB [default: that of the disk in the file]
    #[arg(long, value_name = "N")]
    pub size_mib: Option<u64>,
    /// SHA-256 of the file
    #[arg(long, value_name = "DIGITS")]
    pub sha256: Option<String>,
    /// What it is once it is unpacked, raw or qcow2; otherwise its first bytes
    /// decide
    #[arg(long)]
    pub format: Option<ImageFormat>,
    #[command(flatten)]
    pub terms: VolumeTerms,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct AttachVolume {
    #[command(flatten)]
    pub which: WhichVolume,
    /// Name or id of the VM
    #[arg(value_name = "VM")]
    pub vm: String,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct DetachVolume {
    #[command(flatten)]
    pub which: WhichVolume,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct GrowVolume {
    #[command(flatten)]
    pub which: WhichVolume,
    /// The size it is to have, in MiB; a volume never shrinks
    #[arg(long, value_name = "N")]
    pub size_mib: u64,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct MoveVolume {
    #[command(flatten)]
    pub which: WhichVolume,
    /// The datastore it is to be in; `local` is the host's own directory
    #[arg(long, value_name = "DATASTORE")]
    pub to: String,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct ChangeVolume {
    #[command(flatten)]
    pub which: WhichVolume,
    /// Delete it together with the VM that has it, or keep it then
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    pub delete_with_vm: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct DownloadVolume {
    #[command(flatten)]
    pub which: WhichVolume,
    /// Where it is to be: a qcow2 image
    pub file: PathBuf,
}

#[derive(Args)]
pub struct CloneVolume {
    #[command(flatten)]
    pub which: WhichVolume,
    /// What the new volume is to be called; its bytes come to be where it is
    /// first attached
    pub name: String,
    /// Delete the new volume together with the VM that has it
    #[arg(long)]
    pub delete_with_vm: bool,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct DeleteVolume {
    #[command(flatten)]
    pub which: WhichVolume,
    /// Do not ask; without a terminal nobody is asked
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Subcommand)]
pub enum Snapshot {
    /// List the snapshots of a VM, the oldest first
    List(SnapshotList),
    /// Keep a VM's disks as they are at one instant
    Create(TakeSnapshot),
    /// Go back to a snapshot; what came after it is lost
    Revert(Revert),
    /// Let go of a snapshot; the VM stays as it is
    Delete(DeleteSnapshot),
}

#[derive(Args)]
pub struct SnapshotList {
    /// Name or id of the VM
    #[arg(value_name = "VM")]
    pub vm: String,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct TakeSnapshot {
    /// Name or id of the VM
    #[arg(value_name = "VM")]
    pub vm: String,
    /// What the snapshot is to be called
    pub name: String,
    /// Keep the memory, too, so that the VM can go back to it while it runs; it
    /// stands still meanwhile
    #[arg(long)]
    pub memory: bool,
    /// Keep one of its volumes alone, and no other disk
    #[arg(long, value_name = "VOLUME", conflicts_with = "memory")]
    pub volume: Option<String>,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct WhichSnapshot {
    /// Name or id of the VM
    #[arg(value_name = "VM")]
    pub vm: String,
    /// Name or id of the snapshot
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
}

#[derive(Args)]
pub struct Revert {
    #[command(flatten)]
    pub which: WhichSnapshot,
    /// Do not ask; without a terminal nobody is asked
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct DeleteSnapshot {
    #[command(flatten)]
    pub which: WhichSnapshot,
    #[command(flatten)]
    pub wait: WaitThrough,
}

#[derive(Args)]
pub struct WaitThrough {
    /// Wait until it is through
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub timeout: Timeout,
    #[command(flatten)]
    pub json: Json,
}
