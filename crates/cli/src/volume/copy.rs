//! Between volumes and files of this machine: by way of an image.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use vimana_client::Client;
use vimana_model::image::{ImageAction, ImageState, ImageView, ImportImage};
use vimana_model::name::{ImageName, VolumeName};
use vimana_model::volume::VolumeView;

use super::resolve;
use crate::args::{DownloadVolume, ImageTerms, Timeout};
use crate::failure::{Failure, Outcome};
use crate::limits::MAX_WAIT_SECONDS;
use crate::text::shown;
use crate::wait::OperationWatch;
use crate::{credentials, image};

/// Into a file of this machine.
pub async fn download(DownloadVolume { which, file }: DownloadVolume) -> Outcome {
    if file.exists() {
        let told = format!("{} is there already", file.display());
        return Err(Failure::Failed(told));
    }
    let client = credentials::client()?;
    let volume = client
        .volume(resolve(&client, &which.volume).await?)
        .await?;
    let rest = format!("vimana image download NAME {}", file.display());
    let image = image_of(&client, &volume, &rest).await?;
    image::to_file(&client, &image, &file).await?;
    client.act_on_image(image.id, ImageAction::Delete).await?;
    client.act_on_image(image.id, ImageAction::Purge).await?;
    Ok(())
}

/// An image of that file, whole and checked; where an earlier command began to
/// make it, it goes on.
pub async fn upload(
    client: &Client,
    path: &Path,
    volume: &VolumeName,
    terms: ImageTerms,
) -> Outcome<ImageView> {
    let name = ImageName::new(format!("upload-of-{volume}")).map_err(|error| {
        let told = format!("name: with `upload-of-` before it: {error}");
        Failure::Usage(told)
    })?;
    let (file, upload) = image::open_upload(path)?;
    let terms = image::form(terms)?;
    let images = client.images().await?;
    let mut named = images
        .into_iter()
        .filter(|image| image.name == name && image.tenant_id.is_some());
    // What an earlier command made of it and no volume, may be of other bytes.
    if let Some(image) = named.find(|image| image.state == ImageState::Ready) {
        client.act_on_image(image.id, ImageAction::Delete).await?;
    }
    let image = image::send(client, file, upload, name, terms).await?;
    let timeout = Timeout {
        timeout: MAX_WAIT_SECONDS,
    };
    let watch = OperationWatch::open(client, true, timeout).await?;
    image::imported(client, watch, client.image(image.id).await?).await
}

/// An image of what is on the volume now; tells what stays of it where this is
/// interrupted, and how it goes on by hand.
async fn image_of(client: &Client, volume: &VolumeView, rest: &str) -> Outcome<ImageView> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    let id = volume.id.to_string();
    let tail = id.get(id.len().saturating_sub(8)..).unwrap_or_default();
    let name = format!("download-{tail}-{seconds}");
    let form = ImportImage {
        name: name.clone(),
        volume: Some(id),
        ..ImportImage::default()
    };
    let timeout = Timeout {
        timeout: MAX_WAIT_SECONDS,
    };
    let watch = OperationWatch::open(client, true, timeout).await?;
    let accepted = client.import_image(&form).await?;
    eprintln!(
        "image {name} is made of volume {}. If this is interrupted, it stays: `{}` goes on \
         once it is ready, `vimana image delete {name}` gives it up",
        volume.name,
        rest.replace("NAME", &name),
    );
    if let Some(waits_for) = &accepted.operation.waits_for {
        eprintln!("it waits for {}", shown(waits_for));
    }
    if let Some(watch) = watch {
        watch.until_through(accepted.operation).await?;
    }
    Ok(client.image(accepted.image.id).await?)
}
