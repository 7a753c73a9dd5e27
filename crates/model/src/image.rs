//! Bootable read-only content, and where it came from.

mod refresh;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use refresh::{InvalidRefresh, RefreshEvery, RefreshImage, RefreshView};

use crate::action::Refusal;
use crate::backup::{BackupSource, FromBackup};
use crate::name::{ImageName, VolumeName};
use crate::operation::OperationView;
use crate::unit::MiB;
use crate::vm::field;
use crate::{BackupId, Error, FieldError, ImageId, TenantId, Timestamp, VolumeId};

/// How an image's bytes are laid out; recorded once and never guessed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    Qcow2,
    Raw,
}

impl ImageFormat {
    pub const ALL: [Self; 2] = [Self::Qcow2, Self::Raw];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such format: one of {}", ImageFormat::ALL.map(ImageFormat::name).join(", "))]
pub struct InvalidFormat;

impl FromStr for ImageFormat {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or(InvalidFormat)
    }
}

/// Where an image is in its life.
///
/// ```text
/// Importing ──▶ Ready ⇄ Trashed ──▶ Removed
///     ▲ ▼                              ▲
///    Failed ───────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Its bytes are on their way.
    Importing,
    /// VMs can be made from it.
    Ready,
    /// Its import failed or was cancelled; no byte of it is kept.
    Failed,
    /// Deleted, and kept for a while; VMs made from it go on.
    Trashed,
    /// Nothing of it is left but this record.
    Removed,
}

impl ImageState {
    pub const ALL: [Self; 5] = [
        Self::Importing,
        Self::Ready,
        Self::Failed,
        Self::Trashed,
        Self::Removed,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Importing => "Importing",
            Self::Ready => "Ready",
            Self::Failed => "Failed",
            Self::Trashed => "Trashed",
            Self::Removed => "Removed",
        }
    }

    /// One sentence for a person who meets the state for the first time.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Importing => "its bytes are on their way, or being checked",
            Self::Ready => "VMs can be made from it",
            Self::Failed => "its import failed; nothing of it is kept",
            Self::Trashed => "deleted; it can still be restored",
            Self::Removed => "nothing of it is left",
        }
    }

    /// Whether the repository keeps bytes of it.
    #[must_use]
    pub const fn has_content(self) -> bool {
        matches!(self, Self::Ready | Self::Trashed)
    }

    /// Whether more of an upload is taken in.
    ///
    /// # Errors
    /// The sentence that refuses it; the image is its subject.
    pub const fn judge_upload(self) -> Result<(), Refusal> {
        match self {
            Self::Importing => Ok(()),
            Self::Ready | Self::Trashed => Err(Refusal("was uploaded already")),
            Self::Failed => Err(Refusal(
                "takes no bytes any more: its import failed; import it again first",
            )),
            Self::Removed => Err(Refusal("is gone for good")),
        }
    }

    /// Whether its name is taken by it.
    #[must_use]
    pub const fn holds_name(self) -> bool {
        matches!(self, Self::Importing | Self::Ready)
    }
}

impl fmt::Display for ImageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something a person can ask of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ImageAction {
    /// Put it in the trash; what is being imported or failed goes at once.
    Delete,
    /// Take it out of the trash.
    Restore,
    /// Remove it from the trash before its time.
    Purge,
    /// Import it again.
    Retry,
}

impl ImageAction {
    pub const ALL: [Self; 4] = [Self::Delete, Self::Restore, Self::Purge, Self::Retry];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Restore => "restore",
            Self::Purge => "purge",
            Self::Retry => "retry",
        }
    }

    /// What the action does, for a button.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Delete => "Delete",
            Self::Restore => "Restore",
            Self::Purge => "Remove for good",
            Self::Retry => "Import again",
        }
    }

    /// Whether the action is accepted in `state`.
    ///
    /// # Errors
    /// The sentence that refuses it; the image is its subject.
    pub const fn judge(self, state: ImageState) -> Result<(), Refusal> {
        use ImageState as S;
        let refusal = match (self, state) {
            (Self::Delete, S::Importing | S::Ready | S::Failed)
            | (Self::Restore | Self::Purge, S::Trashed)
            | (Self::Retry, S::Failed) => return Ok(()),
            (_, S::Removed) => "is gone for good",
            (Self::Delete, S::Trashed) => "is in the trash already",
            (Self::Restore, S::Importing | S::Ready | S::Failed) => "is not in the trash",
            (Self::Purge, S::Importing | S::Ready | S::Failed) => {
                "is not in the trash; delete it first"
            }
            (Self::Retry, S::Importing) => "is still being imported",
            (Self::Retry, S::Ready | S::Trashed) => "was imported already",
        };
        Err(Refusal(refusal))
    }
}

impl fmt::Display for ImageAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an image is, known once its import is through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageContent {
    pub format: ImageFormat,
    /// Bytes as stored.
    pub size_bytes: u64,
    /// Size of the disk a guest sees.
    pub virtual_mib: MiB,
    /// Hexadecimal SHA-256 of the stored bytes.
    pub sha256: String,
}

/// Where an image came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Origin {
    /// Fetched; passwords and queries are not shown.
    Url {
        url: String,
        /// Bytes that were fetched, once they were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetched: Option<Fetched>,
    },
    /// A file of the machine that the server runs on, named by its operator or
    /// by an administrator.
    File {
        path: String,
        /// What was read, where an administrator asked for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetched: Option<Fetched>,
    },
    /// A disk of a VM, as a backup has it.
    Backup {
        backup_id: BackupId,
        /// What the backup is called.
        backup: String,
        /// What its VM was called then.
        vm: String,
        /// Which of its disks, for people.
        disk: String,
        /// Bytes that were made of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetched: Option<Fetched>,
    },
    /// Sent by whoever imported it.
    Upload {
        /// What the file was called there: for people, and used for nothing.
        file_name: String,
        /// How large it was said to be.
        size_bytes: u64,
        /// Bytes that were sent, once all were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetched: Option<Fetched>,
    },
    /// What was on a volume at one instant.
    Volume {
        volume_id: VolumeId,
        /// What it was called.
        name: VolumeName,
        /// The volume that is to begin with this content, where the image is
        /// there for nothing else: it goes to the trash once it is whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clone: Option<VolumeName>,
        /// Bytes that its host sent, once all were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetched: Option<Fetched>,
    },
}

impl Origin {
    /// What came, once it did.
    #[must_use]
    pub const fn fetched(&self) -> Option<&Fetched> {
        match self {
            Self::Url { fetched, .. }
            | Self::File { fetched, .. }
            | Self::Backup { fetched, .. }
            | Self::Upload { fetched, .. }
            | Self::Volume { fetched, .. } => fetched.as_ref(),
        }
    }

    pub fn set_fetched(&mut self, came: Option<Fetched>) {
        match self {
            Self::Url { fetched, .. }
            | Self::File { fetched, .. }
            | Self::Backup { fetched, .. }
            | Self::Upload { fetched, .. }
            | Self::Volume { fetched, .. } => *fetched = came,
        }
    }
}

/// What came from the source, before it was unpacked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Fetched {
    pub size_bytes: u64,
    /// Its kind and the hexadecimal digits, such as `SHA-256 e3b0…`.
    pub checksum: String,
    /// Whether it was compared with one that was given.
    pub verified: bool,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, .. } => f.write_str(url),
            Self::File { path, .. } => f.write_str(path),
            Self::Upload { file_name, .. } => f.write_str(file_name),
            Self::Backup {
                backup, vm, disk, ..
            } => write!(f, "{disk} of {vm} in {backup}"),
            Self::Volume { name, .. } => write!(f, "volume {name}"),
        }
    }
}

/// The form that imports an image. Exactly one of `url`, `upload`, `path` and
/// The form that imports an image. Exactly one of `url`, `upload`, `path`,
/// `backup` and `volume` says where its bytes are: a raw or qcow2 image, packed by
/// gzip, xz or zstd
/// or not at all, or one of another hypervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ImportImage {
    pub name: String,
    /// `http(s)://`, `ftp://` or `nfs://server/export/path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file whose bytes follow, to `/images/{image_id}/content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
    /// A file of the machine that the server runs on, in a directory that its
    /// operator allows; for administrators alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A disk in a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<FromBackup>,
    /// Id or name of a volume, attached or not, whose content it is to have as
    /// it is at one instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// SHA-256 or SHA-512 of the file as it is fetched, in hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// What it is, once it is unpacked; otherwise its first bytes decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ImageFormat>,
    /// For all tenants; for administrators alone.
    #[serde(default)]
    pub public: bool,
    /// How often its URL is asked for something new, in seconds: from an hour
    /// to 90 days. What is new takes the image's name; a checksum is of the
    /// first file alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_seconds: Option<u64>,
}

/// A file that will be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// So many bytes, neither more nor less.
    pub size_bytes: u64,
    /// What it is called where it comes from, without directories; for people,
    /// and used for nothing.
    pub file_name: String,
}

/// The same form, with every field known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    pub name: ImageName,
    pub source: ImageSource,
    pub checksum: Option<String>,
    pub format: Option<ImageFormat>,
    pub public: bool,
    pub refresh: Option<RefreshEvery>,
}

/// Where an image's bytes are to be had.
#[derive(Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// May have a password in it.
    Url(String),
    Upload(Upload),
    /// Absolute.
    Path(String),
    Backup(BackupSource),
    Volume(VolumeId),
}

impl fmt::Debug for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => f.write_str("Url"),
            Self::Upload(upload) => upload.fmt(f),
            Self::Path(path) => write!(f, "Path({path:?})"),
            Self::Backup(backup) => backup.from.fmt(f),
            Self::Volume(id) => write!(f, "Volume({id})"),
        }
    }
}

const SCHEMES: [&str; 4] = ["http://", "https://", "ftp://", "nfs://"];
const MAX_URL_BYTES: usize = 2048;
const MAX_PATH_BYTES: usize = 4095;
const MAX_FILE_NAME_CHARS: usize = 255;

impl ImportImage {
    /// Checks every field and reports all that are wrong at once. What only
    /// the server can know about the source, it says when the form arrives;
    /// which volume a name means is known to it, too.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Invalid`] with one entry per field at fault.
    pub fn check(&self) -> Result<ImageRequest, Error> {
        let name = field("name", ImageName::new(self.name.as_str()));
        let source = self.source();
        let given = self.checksum.as_deref().map(str::trim);
        let given = given.filter(|text| !text.is_empty());
        let checksum = field("checksum", given.map(checksum).transpose());
        let refresh = field("refresh_seconds", self.refresh());
        match (name, source, checksum, refresh) {
            (Ok(name), Ok(source), Ok(checksum), Ok(refresh)) => Ok(ImageRequest {
                name,
                source,
                checksum,
                format: self.format,
                public: self.public,
                refresh,
            }),
            (name, source, checksum, refresh) => {
                let mut wrong: Vec<FieldError> = name.err().into_iter().collect();
                wrong.extend(source.err().into_iter().flatten());
                wrong.extend(checksum.err());
                wrong.extend(refresh.err());
                Err(Error::invalid(wrong))
            }
        }
    }

    fn refresh(&self) -> Result<Option<RefreshEvery>, String> {
        match self.refresh_seconds {
            Some(_) if self.url.is_none() => {
                Err("only an image that comes from a URL is refreshed".to_owned())
            }
            Some(seconds) => match RefreshEvery::new(seconds) {
                Ok(every) => Ok(Some(every)),
                Err(invalid) => Err(invalid.to_string()),
            },
            None => Ok(None),
        }
    }

    fn source(&self) -> Result<ImageSource, Vec<FieldError>> {
        const PLACES: &str = "one of url, upload, path, backup and volume";
        let given = [
            self.url.as_ref().map(|_| "url"),
            self.upload.as_ref().map(|_| "upload"),
            self.path.as_ref().map(|_| "path"),
            self.backup.as_ref().map(|_| "backup"),
            self.volume.as_ref().map(|_| "volume"),
        ];
        if let Some(second) = given.into_iter().flatten().nth(1) {
            let message = format!("an image comes from one place: give {PLACES}");
            return Err(vec![FieldError::new(second, message)]);
        }
        let one = |error| vec![error];
        if let Some(text) = &self.url {
            let url = field("url", url(text.trim()));
            return url.map(ImageSource::Url).map_err(one);
        }
        if let Some(form) = &self.upload {
            return upload(form).map(ImageSource::Upload);
        }
        if let Some(text) = &self.path {
            let path = field("path", path(text.trim()));
            return path.map(ImageSource::Path).map_err(one);
        }
        if let Some(from) = &self.backup {
            return Ok(ImageSource::Backup(BackupSource {
                from: from.clone(),
                becomes: None,
            }));
        }
        if let Some(text) = &self.volume {
            let volume = field("volume", volume(text.trim()));
            return volume.map(ImageSource::Volume).map_err(one);
        }
        let message = format!("say where the image is: give {PLACES}");
        Err(vec![FieldError::new("url", message)])
    }
}

fn upload(form: &Upload) -> Result<Upload, Vec<FieldError>> {
    let size = match form.size_bytes {
        0 => Err("an empty file is no image"),
        size => Ok(size),
    };
    let size = field("upload.size_bytes", size);
    let name = field("upload.file_name", file_name(form.file_name.trim()));
    match (size, name) {
        (Ok(size_bytes), Ok(file_name)) => Ok(Upload {
            size_bytes,
            file_name,
        }),
        (size, name) => Err([size.err(), name.err()].into_iter().flatten().collect()),
    }
}

fn file_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("say what the file is called");
    }
    if text.chars().count() > MAX_FILE_NAME_CHARS {
        return Err("a file name here has at most 255 characters");
    }
    if text.chars().any(char::is_control) {
        return Err("the file name has a control character in it");
    }
    if text.contains('/') {
        return Err("a file name has no directories in it");
    }
    Ok(text.to_owned())
}

fn volume(text: &str) -> Result<VolumeId, String> {
    text.parse()
        .map_err(|_| format!("there is no volume `{text}`"))
}

fn path(text: &str) -> Result<String, &'static str> {
    if text.len() > MAX_PATH_BYTES {
        return Err("a path here has at most 4095 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("the path has a control character in it");
    }
    if !text.starts_with('/') {
        return Err("say the whole path, from / on");
    }
    if text.split('/').any(|part| part == "..") {
        return Err("the path has `..` in it");
    }
    Ok(text.to_owned())
}

fn url(text: &str) -> Result<String, &'static str> {
    let lower = text.to_ascii_lowercase();
    if text.is_empty() {
        return Err("say where the image is");
    }
    if text.len() > MAX_URL_BYTES {
        return Err("a URL here has at most 2048 bytes");
    }
    if text.chars().any(char::is_control) {
        return Err("the URL has a control character in it");
    }
    if !SCHEMES.iter().any(|scheme| lower.starts_with(scheme)) {
        return Err("images come from http://, https://, ftp:// and nfs://");
    }
    Ok(text.to_owned())
}

fn checksum(text: &str) -> Result<String, &'static str> {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits || !matches!(text.len(), 64 | 128) {
        return Err("a checksum is 64 (SHA-256) or 128 (SHA-512) hexadecimal digits");
    }
    Ok(text.to_ascii_lowercase())
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageView {
    pub id: ImageId,
    pub name: ImageName,
    /// Whose it is; of one for all tenants nothing.
    pub tenant_id: Option<TenantId>,
    /// Name of the user who imported it.
    pub owner: Option<String>,
    pub state: ImageState,
    pub state_since: Timestamp,
    /// Why the import failed.
    pub failure: Option<String>,
    pub content: Option<ImageContent>,
    pub origin: Origin,
    /// VMs made from it that are not done, as far as the reader may see them;
    /// not told in the event stream.
    pub used_by: Option<u32>,
    /// When it leaves the trash for good, if nothing uses it then.
    pub purge_at: Option<Timestamp>,
    /// How it is kept up to date, if it is.
    #[serde(default)]
    pub refresh: Option<RefreshView>,
    /// When something new from its source took its name. It goes into the
    /// trash once nothing is made from it.
    #[serde(default)]
    pub superseded_at: Option<Timestamp>,
    /// The latest import.
    pub operation: Option<OperationView>,
    pub created_at: Timestamp,
}

/// The answer to an import that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AcceptedImage {
    pub image: ImageView,
    pub operation: OperationView,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_action_has_its_answer() {
        let mut table = String::new();
        for action in ImageAction::ALL {
            for state in ImageState::ALL {
                let answer = match action.judge(state) {
                    Ok(()) => "accepted".to_owned(),
                    Err(refusal) => format!("refused: the image {refusal}"),
                };
                table.push_str(&format!("{action:<7} {state:<9} {answer}\n"));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn only_what_comes_from_a_url_is_refreshed() {
        let form = ImportImage {
            name: "x".to_owned(),
            path: Some("/srv/x".to_owned()),
            refresh_seconds: Some(86_400),
            ..ImportImage::default()
        };
        let error = form.check().unwrap_err();
        assert!(format!("{error:?}").contains("refresh_seconds"));
    }

    #[test]
    fn the_form_names_every_field_at_fault() {
        let form = ImportImage {
            name: "../../etc/cron.d/x".to_owned(),
            url: Some("file:///etc/shadow".to_owned()),
            checksum: Some("abc".to_owned()),
            ..ImportImage::default()
        };
        let error = form.check().unwrap_err();
        let fields: Vec<&str> = error.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["name", "url", "checksum"]);
    }

    #[test]
    fn a_checksum_is_taken_in_any_case_and_an_empty_one_is_none() {
        let digits = "AB".repeat(32);
        let form = |checksum: &str| ImportImage {
            name: "debian-12".to_owned(),
            url: Some(" HTTPS://example.org/x.qcow2 ".to_owned()),
            checksum: Some(checksum.to_owned()),
            ..ImportImage::default()
        };
        let checked = form(&digits).check().unwrap();
        assert_eq!(checked.checksum, Some("ab".repeat(32)));
        let url = "HTTPS://example.org/x.qcow2".to_owned();
        assert_eq!(checked.source, ImageSource::Url(url));
        assert_eq!(form("  ").check().unwrap().checksum, None);
        assert!(form(&"é".repeat(32)).check().is_err());
    }

    #[test]
    fn an_image_comes_from_exactly_one_place() {
        let file = || Upload {
            size_bytes: 1,
            file_name: "disk.img".to_owned(),
        };
        let form = |url: Option<&str>, upload: Option<Upload>, path: Option<&str>| {
            let form = ImportImage {
                name: "debian-12".to_owned(),
                url: url.map(str::to_owned),
                upload,
                path: path.map(str::to_owned),
                ..ImportImage::default()
            };
            form.check().map(|checked| checked.source).map_err(|error| {
                let field = |error: &FieldError| error.field.clone();
                error.fields.iter().map(field).collect::<Vec<_>>()
            })
        };
        let url = Some("ftp://h/x");
        assert_eq!(form(None, None, None), Err(vec!["url".to_owned()]));
        let two = |upload, path| form(url, upload, path).unwrap_err();
        assert_eq!(two(Some(file()), None), ["upload"]);
        assert_eq!(two(None, Some("/x")), ["path"]);
        assert_eq!(two(Some(file()), Some("/x")), ["upload"]);
        let volume = ImportImage {
            name: "debian-12".to_owned(),
            volume: Some(VolumeId::from_parts(1, [1; 10]).to_string()),
            ..ImportImage::default()
        };
        let id = VolumeId::from_parts(1, [1; 10]);
        let source = volume.check().unwrap().source;
        assert_eq!(source, ImageSource::Volume(id));
        for wrong in [
            ImportImage {
                url: Some("ftp://h/x".to_owned()),
                ..volume.clone()
            },
            ImportImage {
                volume: Some("../data".to_owned()),
                ..volume
            },
        ] {
            let fields = wrong.check().unwrap_err().fields;
            assert_eq!(fields.first().unwrap().field, "volume");
        }
        let both = form(None, Some(file()), Some("/x"));
        assert_eq!(both, Err(vec!["path".to_owned()]));
        let upload = form(None, Some(file()), None);
        assert_eq!(upload, Ok(ImageSource::Upload(file())));
        let path = form(None, None, Some(" /srv/x y.img "));
        assert_eq!(path, Ok(ImageSource::Path("/srv/x y.img".to_owned())));
        for path in ["", "x", "/a/../b", "/..", "/a\0b", "/a\nb"] {
            assert!(form(None, None, Some(path)).is_err(), "{path:?}");
        }
    }

    #[test]
    fn an_upload_says_how_large_it_is_and_what_it_is_called() {
        let wrong = |size_bytes, file_name: &str| {
            let form = Upload {
                size_bytes,
                file_name: file_name.to_owned(),
            };
            let wrong = upload(&form).err().unwrap_or_default();
            let wrong: Vec<String> = wrong.into_iter().map(|error| error.field).collect();
            wrong.join(" ")
        };
        assert_eq!(wrong(1, "disk (1) \u{e9}.qcow2.xz"), "");
        assert_eq!(wrong(u64::MAX, &"\u{e9}".repeat(255)), "");
        assert_eq!(wrong(0, ""), "upload.size_bytes upload.file_name");
        for name in [
            " ",
            "../x",
            "/etc/passwd",
            "a\u{1b}[2J",
            "a\0",
            &"x".repeat(256),
        ] {
            assert_eq!(wrong(1, name), "upload.file_name", "{name:?}");
        }
    }

    #[test]
    fn a_url_is_not_shown_by_accident() {
        let url = ImageSource::Url("ftp://ada:secret@h/x".to_owned());
        assert!(!format!("{url:?}").contains("secret"));
    }
}
