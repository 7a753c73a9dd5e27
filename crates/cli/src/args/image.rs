//! What can be asked of images.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vimana_model::backup::DiskId;
use vimana_model::image::{ImageFormat, RefreshEvery};

use super::{Json, Timeout};

const UPLOAD_HELP: &str = "\
A connection that breaks is made again. When the command itself ends before all
is sent (Ctrl-C, a laptop without power), the same command goes on from there,
within a day: an image of that name that waits for a file of this name and size
is taken for the one that was begun. Whether the file is still the same, only
--sha256 or --sha512 tells.

`vimana image delete` gives an upload up.";

const REFRESH_HELP: &str = "\
Something new takes the image's name; the image gets another one with the day in
it, stays for the VMs that are made from it, and then goes into the trash. An
image whose refresh fails stays as it is, and its source is asked again when it
is next due.

A password in the URL is kept for as long as the image is refreshed, and shown to
nobody; once it is not, the URL has to be given again.";

const DOWNLOAD_HELP: &str = "\
A connection that breaks is made again. When the command itself ends before all
is there, the same command goes on from there: until then the bytes are in a
file beside the one that is asked for, which appears once its SHA-256 is right.";

#[derive(Subcommand)]
pub enum Image {
    /// List the images that VMs can be made from, and those on their way
    List(Json),
    /// Show one image, with where it came from
    Show(ImageShown),
    /// Import an image from http(s)://, ftp:// or nfs://, or of what is on a
    /// volume
    Import(ImportImage),
    /// Send a file of this machine as an image; sent again, it goes on where
    /// it was
    #[command(after_help = UPLOAD_HELP)]
    Upload(UploadImage),
    /// Bring an image to this machine, as it is stored; asked again, it goes on
    /// where it was
    #[command(after_help = DOWNLOAD_HELP)]
    Download(DownloadImage),
    /// Put an image in the trash; one that is being imported, or failed, goes
    /// at once
    Delete(ImageChange),
    /// Take an image out of the trash
    Restore(ImageChange),
    /// Remove an image from the trash for good
    Purge(Purge),
    /// Import an image again whose import failed
    Retry(RetryImage),
    /// Keep an image up to date: ask its source on a schedule, or now, whether
    /// it has something new
    #[command(after_help = REFRESH_HELP)]
    Refresh(RefreshImage),
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
#[command(group = clap::ArgGroup::new("source").required(true))]
pub struct ImportImage {
    /// What the image is to be called
    pub name: String,
    /// Where it is: http(s)://, ftp:// or nfs://server/export/path
    #[arg(long, value_name = "URL", group = "source")]
    pub from: Option<String>,
    /// Ask the URL that often for something new, which takes the name: daily,
    /// weekly, or hours and days such as 12h and 30d, from 1h to 90d. A password
    /// in the URL is kept for that
    #[arg(long, value_name = "EVERY", conflicts_with = "path")]
    pub refresh: Option<RefreshEvery>,
    /// File of the server's machine, in a directory that its operator allows
    /// (for administrators)
    #[arg(long, group = "source")]
    pub path: Option<String>,
    /// A backup: its id, or its name where only one VM has a backup of it
    #[arg(long, value_name = "BACKUP", group = "source")]
    pub from_backup: Option<String>,
    /// Which of the backup's disks: root, or the id of a volume
    #[arg(long, default_value = "root", requires = "from_backup")]
    pub disk: DiskId,
    /// Name or id of a volume, attached or not: what is on it at one instant
    #[arg(long, value_name = "VOLUME", group = "source")]
    pub from_volume: Option<String>,
    #[command(flatten)]
    pub terms: ImageTerms,
    #[command(flatten)]
    pub wait: WaitImport,
}

#[derive(Args)]
pub struct RefreshImage {
    #[command(flatten)]
    pub which: WhichImage,
    /// That often: daily, weekly, or hours and days such as 12h and 30d, from
    /// 1h to 90d
    #[arg(long, value_name = "EVERY")]
    pub every: Option<RefreshEvery>,
    /// Where it is, where that is no longer known
    #[arg(long, value_name = "URL", requires = "every")]
    pub from: Option<String>,
    /// No more
    #[arg(long, conflicts_with = "every")]
    pub never: bool,
    /// At once; the same as to say nothing else
    #[arg(long, conflicts_with = "never")]
    pub now: bool,
    #[command(flatten)]
    pub json: Json,
}

#[derive(Args)]
pub struct DownloadImage {
    #[command(flatten)]
    pub which: WhichImage,
    /// Where it is to be [default: the image's name, and its format as ending]
    pub file: Option<PathBuf>,
}

#[derive(Args)]
pub struct UploadImage {
    /// The file: a raw or qcow2 image, packed or not, or one of another
    /// hypervisor
    pub file: PathBuf,
    /// What the image is to be called [default: the file's name without its
    /// endings]
    #[arg(long)]
    pub name: Option<String>,
    #[command(flatten)]
    pub terms: ImageTerms,
    #[command(flatten)]
    pub wait: WaitImport,
}

/// What is said of an image before it comes.
#[derive(Args)]
pub struct ImageTerms {
    /// SHA-256 of the file as it is fetched or sent
    #[arg(long, value_name = "DIGITS")]
    pub sha256: Option<String>,
    /// SHA-512 of the file as it is fetched or sent
    #[arg(long, value_name = "DIGITS", conflicts_with = "sha256")]
    pub sha512: Option<String>,
    /// What it is once it is unpacked, raw or qcow2; otherwise its first bytes
    /// decide
    #[arg(long)]
    pub format: Option<ImageFormat>,
    /// For all tenants (for administrators)
    #[arg(long)]
    pub public: bool,
}

#[derive(Args)]
pub struct WaitImport {
    /// Wait until it is there and checked
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub timeout: Timeout,
    #[command(flatten)]
    pub json: Json,
}
