//! Sending an image: in parts, over a line that may break, and on from where
//! an earlier command left off.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use vimana_client::{Client, UploadReach};
use vimana_model::image::{self as model, ImageState, ImageView, Origin};
use vimana_model::name::ImageName;
use vimana_model::{Error, ErrorKind};

use super::line::Line;
use super::{follow, form};
use crate::args::UploadImage;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::limits::{
    FIRST_PART_BYTES, FIRST_UPLOAD_PAUSE, LAST_UPLOAD_PAUSE, MAX_PART_BYTES, MIN_PART_BYTES,
    QUICK_PART, UPLOAD_PATIENCE,
};
use crate::wait::OperationWatch;

/// What an image's file is called after its name.
const ENDINGS: [&str; 9] = [
    ".gz", ".xz", ".zst", ".qcow2", ".raw", ".img", ".vmdk", ".vdi", ".vhdx",
];

pub async fn run(args: UploadImage) -> Outcome {
    let UploadImage {
        file: path,
        name,
        terms,
        wait,
    } = args;
    let (file, upload) = open(&path)?;
    let name = name_of(name, &upload)?;
    let client = credentials::client()?;
    let image = send(&client, file, upload, name, form(terms)?).await?;
    // Opened first, so that nothing is missed of what is then looked at.
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let image = client.image(image.id).await?;
    follow(&client, watch, image, wait.json).await
}

/// Sends a file as an image of that name, or the rest of it where an earlier
/// command began to.
pub async fn send(
    client: &Client,
    file: File,
    upload: model::Upload,
    name: ImageName,
    terms: model::ImportImage,
) -> Outcome<ImageView> {
    let form = model::ImportImage {
        name: name.to_string(),
        upload: Some(upload.clone()),
        ..terms
    };
    let images = client.images().await?;
    let begun = images
        .into_iter()
        .find(|image| waits_for(image, &name, &upload, form.public));
    let image = match begun {
        Some(image) => image,
        None => client.import_image(&form).await?.image,
    };
    let mut line = Line::new(image.name.as_str(), "sent");
    let sent = Sender::new(client, &image, file).send(&mut line).await;
    line.end();
    sent?;
    Ok(image)
}

pub fn open(path: &Path) -> Outcome<(File, model::Upload)> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::Failed(format!("cannot read {}: {why}", path.display()))
    };
    // Looked at before it is opened: a pipe would be waited for.
    let found = std::fs::metadata(path).map_err(|error| refused(&error))?;
    if !found.is_file() {
        return Err(refused(&"it is no regular file"));
    }
    let file = File::open(path).map_err(|error| refused(&error))?;
    let found = file.metadata().map_err(|error| refused(&error))?;
    let file_name = path.file_name().unwrap_or_default();
    let upload = model::Upload {
        size_bytes: found.len(),
        file_name: file_name.to_string_lossy().into_owned(),
    };
    Ok((file, upload))
}

fn name_of(given: Option<String>, upload: &model::Upload) -> Outcome<ImageName> {
    let (text, given) = match &given {
        Some(name) => (name.as_str(), true),
        None => {
            let mut name = upload.file_name.as_str();
            while let Some(bare) = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) {
                name = bare;
            }
            (name, false)
        }
    };
    ImageName::new(text).map_err(|error| {
        let message = match given {
            true => format!("name: {error}"),
            false => format!("say with --name what the image is to be called; `{text}`: {error}"),
        };
        Failure::Usage(message)
    })
}

/// Whether an earlier command began to send this.
fn waits_for(image: &ImageView, name: &ImageName, upload: &model::Upload, public: bool) -> bool {
    is_of(image, upload)
        && image.name == *name
        && image.state == ImageState::Importing
        && image.tenant_id.is_none() == public
}

/// Whether the image is made of this file, as far as its name and size tell.
fn is_of(image: &ImageView, upload: &model::Upload) -> bool {
    match &image.origin {
        Origin::Upload {
            file_name,
            size_bytes,
            fetched: _,
        } => *file_name == upload.file_name && *size_bytes == upload.size_bytes,
        Origin::Url { .. }
        | Origin::File { .. }
        | Origin::Backup { .. }
        | Origin::Volume { .. } => false,
    }
}

struct Sender<'a> {
    client: &'a Client,
    image: &'a ImageView,
    file: File,
    part_bytes: u64,
    /// Since when nothing got on.
    stuck_since: Instant,
    pause: Duration,
}

impl<'a> Sender<'a> {
    fn new(client: &'a Client, image: &'a ImageView, file: File) -> Self {
        Self {
            client,
            image,
            file,
            part_bytes: FIRST_PART_BYTES,
            stuck_since: Instant::now(),
            pause: FIRST_UPLOAD_PAUSE,
        }
    }

    async fn send(mut self, line: &mut Line) -> Outcome {
        let mut known: Option<UploadReach> = None;
        loop {
            let tried = match known {
                // Where it stands, or how it is at all, after something broke.
                None => self.client.image_upload(self.image.id).await,
                Some(reach) => self.send_part(reach).await?,
            };
            let error = match tried {
                Ok(reach) if reach.offset_bytes >= reach.size_bytes => return Ok(()),
                Ok(reach) => {
                    line.tell(reach.offset_bytes, reach.size_bytes);
                    // Only what is sent is progress, not what is asked.
                    if known.is_some() {
                        (self.stuck_since, self.pause) = (Instant::now(), FIRST_UPLOAD_PAUSE);
                    }
                    known = Some(reach);
                    continue;
                }
                Err(error) => error,
            };
            let asked = known.take().is_none();
            if !passes(&error, asked) || self.stuck_since.elapsed() > UPLOAD_PATIENCE {
                return Err(self.failure(error).await);
            }
            line.broken(&error);
            self.part_bytes = (self.part_bytes / 2).max(MIN_PART_BYTES);
            tokio::time::sleep(self.pause).await;
            self.pause = self.pause.saturating_mul(2).min(LAST_UPLOAD_PAUSE);
        }
    }

    async fn send_part(&mut self, reach: UploadReach) -> Outcome<Result<UploadReach, Error>> {
        let UploadReach {
            offset_bytes,
            size_bytes,
        } = reach;
        let length = self.part_bytes.min(size_bytes.saturating_sub(offset_bytes));
        let mut part = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file
            .read_exact_at(&mut part, offset_bytes)
            .map_err(|error| Failure::Failed(format!("cannot read the file any more: {error}")))?;
        let begun = Instant::now();
        let sent = self
            .client
            .send_image_part(self.image.id, offset_bytes, Bytes::from(part))
            .await;
        if sent.is_ok() && begun.elapsed() < QUICK_PART {
            self.part_bytes = self.part_bytes.saturating_mul(2).min(MAX_PART_BYTES);
        }
        Ok(sent)
    }

    /// The import may have failed meanwhile, or have been cancelled: that says
    /// more than the refusal of a part.
    async fn failure(&self, error: Error) -> Failure {
        let name = &self.image.name;
        let now = self.client.image(self.image.id).await;
        if let Ok(now) = now
            && now.state != ImageState::Importing
        {
            let why = now
                .failure
                .unwrap_or_else(|| now.state.meaning().to_owned());
            return Failure::Failed(format!("image `{name}` was not imported: {why}"));
        }
        Failure::Failed(format!(
            "image `{name}` is not sent yet: {error}; the same command goes on where it was"
        ))
    }
}

/// Whether to try again. The server's word on a part may come from another
/// request that still is under way, or from a part that came and whose answer
/// did not; its word on the upload itself is final.
const fn passes(error: &Error, asked: bool) -> bool {
    match error.kind {
        ErrorKind::Unavailable | ErrorKind::RateLimited => true,
        ErrorKind::Conflict | ErrorKind::Malformed => !asked,
        ErrorKind::Unauthenticated
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::OverQuota
        | ErrorKind::Stale
        | ErrorKind::TooLarge
        | ErrorKind::Invalid
        | ErrorKind::Internal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_like_its_file() {
        let name = |file_name: &str| {
            let upload = model::Upload {
                size_bytes: 1,
                file_name: file_name.to_owned(),
            };
            name_of(None, &upload).map(|name| name.to_string())
        };
        assert_eq!(name("debian-12.qcow2.xz").unwrap(), "debian-12");
        assert_eq!(name("debian.12.img").unwrap(), "debian.12");
        for odd in [".qcow2", "my disk.img", "é.raw"] {
            assert!(matches!(name(odd), Err(Failure::Usage(_))), "{odd}");
        }
    }
}
