//! Images.

mod download;
mod line;
mod upload;

use vimana_client::Client;
use vimana_model::ImageId;
use vimana_model::backup::FromBackup;
use vimana_model::image::{
    self as model, ImageAction, ImageState, ImageView, RefreshEvery, RefreshView,
};
use vimana_model::operation::OperationState;
use vimana_model::unit::MiB;

use crate::args::{
    Image, ImageChange, ImageShown, ImageTerms, ImportImage, Json, Purge, RefreshImage, RetryImage,
};
use crate::failure::{Failure, Outcome};
use crate::input::cannot_read;
use crate::operation::{line, steps};
use crate::text::shown;
use crate::wait::OperationWatch;
use crate::{credentials, output, terminal};

pub use download::to_file;
pub use upload::{open as open_upload, send};

pub async fn run(command: Image) -> Outcome {
    match command {
        Image::List(json) => list(json).await,
        Image::Show(args) => show(args).await,
        Image::Import(args) => import(args).await,
        Image::Upload(args) => upload::run(args).await,
        Image::Download(args) => download::run(args).await,
        Image::Delete(args) => act(args, ImageAction::Delete).await,
        Image::Restore(args) => act(args, ImageAction::Restore).await,
        Image::Purge(args) => purge(args).await,
        Image::Retry(args) => retry(args).await,
        Image::Refresh(args) => refresh(args).await,
        Image::Timeline(args) => timeline(args).await,
    }
}

async fn list(Json { json }: Json) -> Outcome {
    let images = credentials::client()?.images().await?;
    if json {
        return output::json(&images);
    }
    let rows: Vec<_> = images
        .iter()
        .map(|image| {
            let content = image.content.as_ref();
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            [
                image.name.to_string(),
                state(image),
                or_dash(content.map(|content| content.format.to_string())),
                or_dash(content.map(|content| stored(content.size_bytes))),
                or_dash(content.map(|content| content.virtual_mib.to_string())),
                if image.tenant_id.is_none() {
                    "all".to_owned()
                } else {
                    or_dash(image.owner.clone())
                },
                output::time(image.created_at),
                image.id.to_string(),
            ]
        })
        .collect();
    let titles = [
        "NAME", "STATE", "FORMAT", "STORED", "DISK", "OWNER", "SINCE", "ID",
    ];
    output::table(titles, &rows, "no images")
}

fn state(image: &ImageView) -> String {
    let state = image.state.name().to_lowercase();
    let progress = image.operation.as_ref().and_then(|found| found.progress);
    match progress {
        Some(progress) if image.state == ImageState::Importing => match progress.total_bytes {
            0 => format!("{state}, {}", MiB::from_bytes(progress.done_bytes)),
            total => {
                let percent = u128::from(progress.done_bytes) * 100 / u128::from(total);
                format!("{state}, {percent} %")
            }
        },
        _ => state,
    }
}

/// Rounded up: an image never takes nothing.
pub fn stored(bytes: u64) -> String {
    MiB(bytes.div_ceil(1 << 20)).to_string()
}

async fn show(ImageShown { which, json }: ImageShown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.image).await?;
    print(&client.image(id).await?, json.json)
}

fn print(image: &ImageView, json: bool) -> Outcome {
    if json {
        return output::json(image);
    }
    let mut pairs = vec![
        ("image", image.name.to_string()),
        ("id", image.id.to_string()),
        (
            "state",
            format!("{}: {}", state(image), image.state.meaning()),
        ),
    ];
    if let Some(failure) = &image.failure {
        pairs.push(("failure", failure.clone()));
    }
    let owner = image.owner.as_deref().unwrap_or("the operator");
    let whose = match image.tenant_id {
        Some(_) => owner.to_owned(),
        None => format!("{owner}, for all tenants"),
    };
    pairs.push(("owner", whose));
    pairs.push(("from", image.origin.to_string()));
    if let Some(fetched) = image.origin.fetched() {
        let verified = if fetched.verified {
            "as it was given"
        } else {
            "none was given to compare with"
        };
        pairs.push(("fetched", stored(fetched.size_bytes)));
        pairs.push(("checksum", format!("{} ({verified})", fetched.checksum)));
    }
    if let Some(content) = &image.content {
        pairs.push(("format", content.format.to_string()));
        pairs.push(("stored", stored(content.size_bytes)));
        pairs.push(("disk", content.virtual_mib.to_string()));
        pairs.push(("sha256", content.sha256.clone()));
    }
    if let Some(refresh) = &image.refresh {
        pairs.extend(refreshed(refresh));
    }
    if let Some(at) = image.superseded_at {
        pairs.push(("replaced", output::time(at)));
    }
    if let Some(used_by) = image.used_by {
        pairs.push(("used by", format!("{used_by} VMs")));
    }
    pairs.push(("since", output::time(image.created_at)));
    if let Some(at) = image.purge_at {
        pairs.push(("removed", output::time(at)));
    }
    if let Some(operation) = &image.operation {
        pairs.push(("import", line(operation)));
        pairs.extend(steps(operation).map(|step| ("", step)));
    }
    output::fields(&pairs)
}

fn refreshed(refresh: &RefreshView) -> Vec<(&'static str, String)> {
    let RefreshView {
        every_seconds,
        next_at,
        last_at,
        failure,
    } = refresh;
    let mut every = format!("every {every_seconds}");
    for (what, at) in [("last", last_at), ("next", next_at)] {
        if let Some(at) = at {
            every.push_str(&format!(", {what} {}", output::time(*at)));
        }
    }
    let failed = failure
        .iter()
        .map(|failure| ("", format!("not since: {failure}")));
    std::iter::once(("refreshed", every))
        .chain(failed)
        .collect()
}

async fn import(args: ImportImage) -> Outcome {
    let ImportImage {
        name,
        from,
        refresh,
        path,
        from_backup,
        disk,
        from_volume,
        terms,
        wait,
    } = args;
    let client = credentials::client()?;
    let backup = match from_backup {
        Some(backup) => Some(FromBackup {
            backup_id: crate::backup::resolve(&client, &backup).await?,
            disk,
        }),
        None => None,
    };
    let form = model::ImportImage {
        name,
        url: from,
        path,
        backup,
        refresh_seconds: refresh.map(RefreshEvery::seconds),
        volume: from_volume,
        ..form(terms)?
    };
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let accepted = client.import_image(&form).await?;
    follow(&client, watch, accepted.image, wait.json).await
}

/// The form with what is said of an image, wherever it comes from.
pub fn form(terms: ImageTerms) -> Outcome<model::ImportImage> {
    let ImageTerms {
        sha256,
        sha512,
        format,
        public,
    } = terms;
    for (checksum, digits, option) in [(&sha256, 64, "--sha256"), (&sha512, 128, "--sha512")] {
        if let Some(checksum) = checksum
            && checksum.trim().len() != digits
        {
            return Err(Failure::Usage(format!(
                "{option} takes {digits} hexadecimal digits"
            )));
        }
    }
    Ok(model::ImportImage {
        checksum: sha256.or(sha512),
        format,
        public,
        ..model::ImportImage::default()
    })
}

async fn refresh(args: RefreshImage) -> Outcome {
    let RefreshImage {
        which,
        every,
        from,
        never,
        now,
        json,
    } = args;
    let client = credentials::client()?;
    let id = resolve(&client, &which.image).await?;
    let mut image = None;
    if let Some(every) = every {
        let form = model::RefreshImage {
            every_seconds: every.seconds(),
            url: from,
        };
        image = Some(client.set_image_refresh(id, &form).await?);
    }
    let image = match image {
        _ if never => client.stop_image_refresh(id).await?,
        Some(image) if !now => image,
        Some(_) | None => client.refresh_image(id).await?,
    };
    print(&image, json.json)
}

async fn retry(RetryImage { which, wait }: RetryImage) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.image).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let image = client.act_on_image(id, ImageAction::Retry).await?;
    follow(&client, watch, image, wait.json).await
}

/// To the end of its import, where that is waited for.
pub async fn follow(
    client: &Client,
    watch: Option<OperationWatch>,
    image: ImageView,
    Json { json }: Json,
) -> Outcome {
    print(&imported(client, watch, image).await?, json)
}

/// The image at the end of its import, where that is waited for.
pub async fn imported(
    client: &Client,
    watch: Option<OperationWatch>,
    mut image: ImageView,
) -> Outcome<ImageView> {
    if let (Some(watch), Some(operation)) = (watch, image.operation.clone()) {
        let operation = watch.until_over(operation).await?;
        if operation.state != OperationState::Succeeded {
            let name = &image.name;
            let why = operation.error.as_deref().unwrap_or("it was cancelled");
            return Err(Failure::Failed(format!(
                "image `{name}` was not imported: {why}"
            )));
        }
        image = client.image(image.id).await?;
    }
    Ok(image)
}

async fn act(ImageChange { which, json }: ImageChange, action: ImageAction) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.image).await?;
    print(&client.act_on_image(id, action).await?, json.json)
}

/// Asks the person once more: afterwards it is gone.
async fn purge(Purge { yes, change }: Purge) -> Outcome {
    if !yes && terminal::is_watched() {
        let question = format!("Remove image {} for good? [y/N] ", change.which.image);
        if !terminal::confirms(&shown(&question)).map_err(|error| cannot_read(&error))? {
            return Err(Failure::Failed("nothing was removed".to_owned()));
        }
    }
    act(change, ImageAction::Purge).await
}

async fn timeline(ImageShown { which, json }: ImageShown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.image).await?;
    let events = client.image_timeline(id).await?;
    if json.json {
        return output::json(&events);
    }
    output::timeline(&events)
}

/// An id, or a name: that of the one image that holds it, or else of the one
/// image that once did.
pub async fn resolve(client: &Client, text: &str) -> Outcome<ImageId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    choose(text, &client.images().await?)
}

fn choose(name: &str, images: &[ImageView]) -> Outcome<ImageId> {
    let named: Vec<&ImageView> = images
        .iter()
        .filter(|image| image.name.as_str() == name)
        .collect();
    let mut holding: Vec<&ImageView> = named.clone();
    holding.retain(|image| image.state.holds_name());
    // One's own comes before the one for all.
    holding.sort_by_key(|image| image.tenant_id.is_none());
    match (holding.first(), named.as_slice()) {
        (Some(image), _) | (None, [image]) => Ok(image.id),
        (None, []) => Err(Failure::Failed(format!("image `{name}` not found"))),
        (None, several) => {
            let ids: Vec<String> = several.iter().map(|image| image.id.to_string()).collect();
            Err(Failure::Failed(format!(
                "several images were called `{name}`; say which by its id: {}",
                ids.join(", ")
            )))
        }
    }
}
