//! Bringing an image here: over a line that may break, and on from where an
//! earlier command left off.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use vimana_client::Client;
use vimana_model::image::{ImageContent, ImageState, ImageView};
use vimana_model::{Error, ErrorKind};

use super::line::Line;
use super::resolve;
use crate::args::DownloadImage;
use crate::failure::{Failure, Outcome};
use crate::limits::{FIRST_UPLOAD_PAUSE, LAST_UPLOAD_PAUSE, UPLOAD_PATIENCE};
use crate::{credentials, output};

pub async fn run(DownloadImage { which, file }: DownloadImage) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.image).await?;
    let image = client.image(id).await?;
    let path = match (file, &image.content) {
        (Some(file), _) => file,
        (None, Some(content)) => PathBuf::from(format!("{}.{}", image.name, content.format)),
        (None, None) => PathBuf::from(image.name.as_str()),
    };
    to_file(&client, &image, &path).await
}

/// Brings an image into a file that is not there yet, and says so.
pub async fn to_file(client: &Client, image: &ImageView, path: &Path) -> Outcome {
    let name = &image.name;
    let Some(content) = image
        .content
        .as_ref()
        .filter(|_| image.state == ImageState::Ready)
    else {
        let (state, why) = (image.state.name().to_lowercase(), image.state.meaning());
        let told = format!("image `{name}` cannot be downloaded: it is {state}, {why}");
        return Err(Failure::Failed(told));
    };
    if path.exists() {
        let told = format!("{} is there already", path.display());
        return Err(Failure::Failed(told));
    }
    let part = part_of(path, content);
    let mut line = Line::new(name.as_str(), "here");
    let fetched = fetch(client, image, content, &part, &mut line).await;
    line.end();
    fetched?;
    let unusable = |error: io::Error| cannot(&part, &error);
    let (size_bytes, sha256) = read(&part).map_err(unusable)?;
    if (size_bytes, sha256.as_str()) != (content.size_bytes, content.sha256.as_str()) {
        std::fs::remove_file(&part).map_err(unusable)?;
        let told = format!("what came of image `{name}` is damaged, and is removed; ask again");
        return Err(Failure::Failed(told));
    }
    std::fs::rename(&part, path).map_err(|error| cannot(path, &error))?;
    output::line(&format!(
        "image {name} is in {} (SHA-256 {sha256})",
        path.display()
    ))
}

/// Beside the file, and of this very content.
fn part_of(path: &Path, content: &ImageContent) -> PathBuf {
    let digits: String = content.sha256.chars().take(12).collect();
    let mut name = OsString::from(path.file_name().unwrap_or_default());
    name.push(format!(".{digits}.part"));
    path.with_file_name(name)
}

/// Until all bytes are in the file.
async fn fetch(
    client: &Client,
    image: &ImageView,
    content: &ImageContent,
    part: &Path,
    line: &mut Line,
) -> Outcome {
    let opened = OpenOptions::new().create(true).append(true).open(part);
    let mut file = opened.map_err(|error| cannot(part, &error))?;
    let (mut stuck_since, mut pause) = (Instant::now(), FIRST_UPLOAD_PAUSE);
    loop {
        let before = length(&file).map_err(|error| cannot(part, &error))?;
        if before >= content.size_bytes {
            break;
        }
        let error = match fetch_once(client, image, content, &mut file, line).await {
            Ok(()) => continue,
            Err(Broken::Here(error)) => return Err(cannot(part, &error)),
            Err(Broken::Line(error)) => error,
        };
        if length(&file).map_err(|error| cannot(part, &error))? > before {
            (stuck_since, pause) = (Instant::now(), FIRST_UPLOAD_PAUSE);
        }
        let passes = matches!(error.kind, ErrorKind::Unavailable | ErrorKind::RateLimited);
        if !passes || stuck_since.elapsed() > UPLOAD_PATIENCE {
            let told = format!(
                "image `{}` is not here yet: {error}; the same command goes on where it was",
                image.name
            );
            return Err(Failure::Failed(told));
        }
        line.broken(&error);
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(LAST_UPLOAD_PAUSE);
    }
    file.sync_all().map_err(|error| cannot(part, &error))
}

enum Broken {
    Line(Error),
    /// On this machine.
    Here(io::Error),
}

async fn fetch_once(
    client: &Client,
    image: &ImageView,
    content: &ImageContent,
    file: &mut File,
    line: &mut Line,
) -> Result<(), Broken> {
    let mut here = length(file).map_err(Broken::Here)?;
    let began = client.download_image(image.id, here).await;
    let mut download = began.map_err(Broken::Line)?;
    if download.offset_bytes != here {
        here = download.offset_bytes;
        file.set_len(here).map_err(Broken::Here)?;
    }
    while let Some(bytes) = download.next().await.map_err(Broken::Line)? {
        file.write_all(&bytes).map_err(Broken::Here)?;
        here = here.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        line.tell(here, content.size_bytes);
    }
    if here < content.size_bytes {
        return Err(Broken::Line(Error::unavailable("the server hung up")));
    }
    Ok(())
}

fn length(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

/// Length and SHA-256 of a file.
fn read(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let (mut buffer, mut size) = (vec![0; 1 << 20], 0_u64);
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok((size, format!("{:x}", hash.finalize())));
        };
        hash.update(bytes);
        size = size.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
}

fn cannot(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("cannot write {}: {error}", path.display()))
}
