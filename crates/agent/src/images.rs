//! The image cache: every image is fetched once, checked, and never changed.

use std::collections::HashMap;
use std::error::Error as _;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::StreamExt as _;
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use vimana_driver::{Fault, FaultKind, ImageRef};
use vimana_model::ImageId;
use vimana_protocol::dial::{Backoff, Retry, Server};
use vimana_protocol::limits::HELLO_TIMEOUT;

use crate::data_dir::sync_dir;
use crate::limits::{DOWNLOAD_STALL, MAX_DOWNLOAD_TRIES};

/// What files that are not yet images are called.
const PARTIAL_PREFIX: &str = ".partial-";

/// Images on this host, in a directory of their own.
pub struct Images {
    directory: PathBuf,
    server: Server,
    http: reqwest::Client,
    retry: Retry,
    /// Whoever holds an image's turn is the one who may fetch it.
    turns: Mutex<HashMap<ImageId, Weak<tokio::sync::Mutex<()>>>>,
}

/// Why a try to fetch an image failed.
enum Failure {
    /// The same again would fail the same.
    Final(Fault),
    /// The server or the way to it had a bad moment.
    Passing(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Final(fault)
    }
}

impl Images {
    /// Takes over `directory`; what an earlier agent did not finish goes.
    ///
    /// # Errors
    /// Where the directory cannot be cleaned.
    pub fn open(
        directory: PathBuf,
        server: Server,
        http: reqwest::Client,
        retry: Retry,
    ) -> io::Result<Self> {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PARTIAL_PREFIX.as_bytes())
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            directory,
            server,
            http,
            retry,
            turns: Mutex::default(),
        })
    }

    /// The image as a local, read-only file; fetched where it is missing.
    /// Several callers for one image share one download.
    ///
    /// # Errors
    /// [`FaultKind::BadImage`] where the bytes are not what was promised,
    /// [`FaultKind::NoSpace`], or [`FaultKind::Host`].
    pub async fn get(&self, image: &ImageRef) -> Result<PathBuf, Fault> {
        let name = format!("{}.{}", image.id, image.format.name());
        let path = self.directory.join(name);
        let turn = self.turn(image.id);
        let _turn = turn.lock().await;
        if !is_cached(&path, image).await? {
            self.fetch(image, &path).await?;
        }
        Ok(path)
    }

    fn turn(&self, id: ImageId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(id, Arc::downgrade(&turn));
        turn
    }

    async fn fetch(&self, image: &ImageRef, path: &Path) -> Result<(), Fault> {
        let mut backoff = Backoff::new(self.retry);
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_fetch(image, path).await {
                Ok(()) => {
                    tracing::info!(image_id = %image.id, bytes = image.size_bytes, "fetched an image");
                    return Ok(());
                }
                Err(Failure::Passing(fault)) if tries < MAX_DOWNLOAD_TRIES => {
                    tracing::debug!(image_id = %image.id, %fault, "an image will be asked for again");
                    tokio::time::sleep(backoff.wait()).await;
                }
                Err(Failure::Passing(fault) | Failure::Final(fault)) => return Err(fault),
            }
        }
    }

    /// One download. The file gets its name only when it is whole, checked
    /// and on the disk; dropping the future leaves nothing.
    async fn try_fetch(&self, image: &ImageRef, path: &Path) -> Result<(), Failure> {
        let response = self.request(image).await?;
        let name = format!(
            "{PARTIAL_PREFIX}{}-{:016x}",
            image.id,
            rand::random::<u64>()
        );
        let partial = self.directory.join(name);
        // Made without waiting, so that no file is without its guard when the
        // future is dropped.
        let (mut file, partial) = std::fs::File::create_new(&partial)
            .and_then(|file| Ok((File::from_std(file), TempPath::try_from_path(partial)?)))
            .map_err(|error| Fault::io("storing the image", &error))?;

        let sum = receive(response, &mut file, image).await?;
        if !sum.eq_ignore_ascii_case(&image.sha256) {
            let message = "the image's checksum is not the one promised";
            return Err(Fault::new(FaultKind::BadImage, message).into());
        }
        seal(file, partial, path)
            .await
            .map_err(|error| Fault::io("storing the image", &error))?;
        Ok(())
    }

    async fn request(&self, image: &ImageRef) -> Result<reqwest::Response, Failure> {
        let bearer = self
            .server
            .bearer()
            .map_err(|error| Fault::new(FaultKind::Host, error.to_string()))?;
        let url = self
            .server
            .http_url(&format!("/agent/v1/images/{}", image.id));
        let response = self.http.get(url).header(AUTHORIZATION, bearer).send();
        let response = response.await.map_err(transfer)?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        if status == StatusCode::NOT_FOUND {
            let message = "the server does not have the image";
            return Err(Fault::new(FaultKind::BadImage, message).into());
        }
        let message = format!("fetching the image: the server answered {status}");
        let fault = Fault::new(FaultKind::Host, message);
        Err(if status.is_server_error() {
            Failure::Passing(fault)
        } else {
            Failure::Final(fault)
        })
    }
}

/// The client images are fetched with.
///
/// # Errors
/// Where TLS cannot be set up.
pub fn http_client(server: &Server) -> reqwest::Result<reqwest::Client> {
    // The control connection uses no proxy either: one way to the server.
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(HELLO_TIMEOUT)
        .read_timeout(DOWNLOAD_STALL);
    match server.tls() {
        Some(tls) => builder.use_preconfigured_tls(tls.as_ref().clone()).build(),
        None => builder.build(),
    }
}

/// Only whole and checked files ever get an image's name, so the size is
/// enough to tell a file that was damaged since.
async fn is_cached(path: &Path, image: &ImageRef) -> Result<bool, Fault> {
    match tokio::fs::metadata(path).await {
        Ok(data) if data.len() == image.size_bytes => Ok(true),
        Ok(_) => {
            tracing::warn!(image_id = %image.id, "a cached image has the wrong size and is fetched again");
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Fault::io("reading the image cache", &error)),
    }
}

/// Writes the body to `file`; gives its SHA-256 in hexadecimal.
async fn receive(
    response: reqwest::Response,
    file: &mut File,
    image: &ImageRef,
) -> Result<String, Failure> {
    let mut body = response.bytes_stream();
    let mut hash = Sha256::new();
    let mut received = 0_u64;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(transfer)?;
        received = received.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if received > image.size_bytes {
            return Err(wrong_size(image, "more").into());
        }
        hash.update(&chunk);
        file.write_all(&chunk)
            .await
            .map_err(|error| Fault::io("storing the image", &error))?;
    }
    file.flush()
        .await
        .map_err(|error| Fault::io("storing the image", &error))?;
    if received < image.size_bytes {
        return Err(wrong_size(image, "fewer").into());
    }
    Ok(format!("{:x}", hash.finalize()))
}

fn wrong_size(image: &ImageRef, how: &str) -> Fault {
    let message = format!(
        "the image has {how} bytes than the {} promised",
        image.size_bytes
    );
    Fault::new(FaultKind::BadImage, message)
}

fn transfer(error: reqwest::Error) -> Failure {
    // The address names nothing a user knows; the cause does.
    let error = error.without_url();
    let mut message = format!("fetching the image: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    Failure::Passing(Fault::new(FaultKind::Host, message))
}

/// Makes the file read-only, brings it to the disk and gives it its name.
async fn seal(file: File, partial: TempPath, path: &Path) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o444)).await?;
    file.sync_all().await?;
    let path = path.to_owned();
    let sealed = tokio::task::spawn_blocking(move || {
        partial.persist(&path).map_err(|error| error.error)?;
        path.parent().map_or(Ok(()), sync_dir)
    });
    sealed.await.map_err(io::Error::other)?
}
