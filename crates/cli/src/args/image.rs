//! What can be asked of images.

use clap::{Args, Subcommand};
use vimana_model::image::ImageFormat;

use super::{Json, Timeout};

#[derive(Subcommand)]
pub enum Image {
    /// List the images that VMs can be made from, and those on their way
    List(Json),
    /// Show one image, with where it came from
    Show(ImageShown),
    /// Import an image from http(s)://, ftp:// or nfs://
    Import(ImportImage),
    /// Put an image in the trash; one that is being imported, or failed, goes
    /// at once
    Delete(ImageChange),
    /// Take an image out of the trash
    Restore(ImageChange),
    /// Remove an image from the trash for good
    Purge(Purge),
    /// Import an image again whose import failed
    Retry(RetryImage),
    /// What happened to an image, and who did it
    Timeline(ImageShown),
}

#[derive(Args)]
pub struct WhichImage {
    /// Name or id of the image
    pub image: String,
}

#[derive(Args)]
pub struct ImageShown {
    #[command(flatten)]
    pub which: WhichImage,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct ImageChange {
    #[command(flatten)]
    pub which: WhichImage,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct Purge {
    /// Do not ask; without a terminal nobody is asked
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub change: ImageChange,
}

#[derive(Args)]
pub struct RetryImage {
    #[command(flatten)]
    pub which: WhichImage,
    #[command(flatten)]
    pub wait: WaitImport,
}

#[derive(Args)]
pub struct ImportImage {
    /// What the image is to be called
    pub name: String,
    /// Where it is: http(s)://, ftp:// or nfs://server/export/path
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// SHA-256 of the file as it is fetched
    #[arg(long, value_name = "DIGITS")]
    pub sha256: Option<String>,
    /// SHA-512 of the file as it is fetched
    #[arg(long, value_name = "DIGITS", conflicts_with = "sha256")]
    pub sha512: Option<String>,
    /// What it is once it is unpacked, raw or qcow2; otherwise its first bytes
    /// decide
    #[arg(long)]
    pub format: Option<ImageFormat>,
    /// For all tenants (for administrators)
    #[arg(long)]
    pub public: bool,
    #[command(flatten)]
    pub wait: WaitImport,
}

#[derive(Args)]
pub struct WaitImport {
    /// Wait until it is there
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub timeout: Timeout,
    #[command(flatten)]
    pub json: Json,
}
