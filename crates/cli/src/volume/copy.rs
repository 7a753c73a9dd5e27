//! What is on a volume, on this machine: by way of an image.

use std::time::{SystemTime, UNIX_EPOCH};

use vimana_client::Client;
use vimana_model::image::{ImageAction, ImageView, ImportImage};
use vimana_model::volume::VolumeView;

use super::resolve;
use crate::args::{DownloadVolume, Timeout};
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
