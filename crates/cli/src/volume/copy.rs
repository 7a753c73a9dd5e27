//! What is on a volume, elsewhere: by way of an image.

use std::time::{SystemTime, UNIX_EPOCH};

use vimana_client::Client;
use vimana_model::image::{ImageAction, ImageView, ImportImage};
use vimana_model::volume::{self as model, VolumeView};

use super::{print, resolve};
use crate::args::{CloneVolume, DownloadVolume, Timeout};
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
    let image = image_of(&client, &volume, "download", &rest).await?;
    image::to_file(&client, &image, &file).await?;
    client.act_on_image(image.id, ImageAction::Delete).await?;
    client.act_on_image(image.id, ImageAction::Purge).await?;
    Ok(())
}

/// Into a volume of its own.
pub async fn clone(args: CloneVolume) -> Outcome {
    let CloneVolume {
        which,
        name,
        delete_with_vm,
        json,
    } = args;
    let client = credentials::client()?;
    let volume = client
        .volume(resolve(&client, &which.volume).await?)
        .await?;
    let form = |image: Option<String>, size_mib| model::CreateVolume {
        name: name.clone(),
        size_mib,
        image,
        delete_with_vm,
    };
    // Before anything is copied in vain.
    form(None, volume.size_mib).check()?;
    let rest = format!(
        "vimana volume create {} --image NAME --size-mib {}",
        shown(&name),
        volume.size_mib.0
    );
    let image = image_of(&client, &volume, "clone", &rest).await?;
    // It may have grown meanwhile.
    let holds = image.content.as_ref().map(|content| content.virtual_mib);
    let size = holds.unwrap_or_default().max(volume.size_mib);
    let form = form(Some(image.name.to_string()), size);
    let made = client.create_volume(&form).await?;
    // Kept in the trash for as long as the new volume is to be made of it.
    client.act_on_image(image.id, ImageAction::Delete).await?;
    print(&made, None, json)
}

/// An image of what is on the volume now; tells what stays of it where this is
/// interrupted, and how it goes on by hand.
async fn image_of(
    client: &Client,
    volume: &VolumeView,
    why: &str,
    rest: &str,
) -> Outcome<ImageView> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = since.map_or(0, |since| since.as_secs());
    let id = volume.id.to_string();
    let tail = id.get(id.len().saturating_sub(8)..).unwrap_or_default();
    let name = format!("{why}-{tail}-{seconds}");
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
