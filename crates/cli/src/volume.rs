//! Volumes.

mod copy;

use vimana_client::Client;
use vimana_model::image::ImageAction;
use vimana_model::unit::MiB;
use vimana_model::volume::{self as model, AcceptedVolume, VolumeContent, VolumeView};
use vimana_model::{VolumeId, operation::OperationView};

use crate::args::{
    AttachVolume, ChangeVolume, CloneVolume, CreateVolume, DeleteVolume, DetachVolume, GrowVolume,
    ImageTerms, Json, MoveVolume, UploadVolume, Volume, VolumeShown, WaitThrough,
};
use crate::failure::{Failure, Outcome};
use crate::input::cannot_read;
use crate::operation::{line, steps};
use crate::text::shown;
use crate::wait::OperationWatch;
use crate::{credentials, output, terminal, vm};

pub async fn run(command: Volume) -> Outcome {
    match command {
        Volume::List(json) => list(json).await,
        Volume::Show(args) => show(args).await,
        Volume::Create(args) => create(args).await,
        Volume::Upload(args) => upload(args).await,
        Volume::Attach(args) => attach(args).await,
        Volume::Detach(args) => detach(args).await,
        Volume::Grow(args) => grow(args).await,
        Volume::Move(args) => relocate(args).await,
        Volume::Change(args) => change(args).await,
        Volume::Download(args) => copy::download(args).await,
        Volume::Clone(args) => clone(args).await,
        Volume::Delete(args) => delete(args).await,
        Volume::Timeline(args) => timeline(args).await,
    }
}

async fn list(Json { json }: Json) -> Outcome {
    let volumes = credentials::client()?.volumes().await?;
    if json {
        return output::json(&volumes);
    }
    let rows: Vec<_> = volumes
        .iter()
        .map(|volume| {
            let vm = volume.vm.as_ref().map_or("-", |vm| vm.name.as_str());
            let host = volume.host.as_ref().map_or("-", |host| host.name.as_str());
            [
                volume.name.to_string(),
                state(volume).to_lowercase(),
                volume.size_mib.to_string(),
                vm.to_owned(),
                host.to_owned(),
                volume.datastore.to_string(),
                volume.owner.clone(),
                output::time(volume.created_at),
                volume.id.to_string(),
            ]
        })
        .collect();
    let titles = [
        "NAME",
        "STATE",
        "SIZE",
        "VM",
        "HOST",
        "DATASTORE",
        "OWNER",
        "CREATED",
        "ID",
    ];
    output::table(titles, &rows, "no volumes")
}

/// In a word.
const fn state(volume: &VolumeView) -> &'static str {
    match &volume.content {
        VolumeContent::Coming => "Filling",
        VolumeContent::Missing { .. } => "Failed",
        VolumeContent::AtHand => volume.state.name(),
    }
}

async fn show(VolumeShown { which, json }: VolumeShown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.volume).await?;
    print(&client.volume(id).await?, None, json)
}

fn print(volume: &VolumeView, operation: Option<&OperationView>, Json { json }: Json) -> Outcome {
    if json {
        return output::json(volume);
    }
    let mut pairs = vec![
        ("volume", volume.name.to_string()),
        ("id", volume.id.to_string()),
        (
            "state",
            match &volume.content {
                VolumeContent::AtHand => {
                    let state = volume.state;
                    format!("{}: {}", state.name().to_lowercase(), state.meaning())
                }
                VolumeContent::Coming => "filling: its content is still on its way".to_owned(),
                VolumeContent::Missing { reason } => format!("failed: its content {reason}"),
            },
        ),
        ("size", volume.size_mib.to_string()),
    ];
    if let Some(image) = &volume.image {
        pairs.push(("copy of", format!("image {image}")));
    }
    if let Some(vm) = &volume.vm {
        pairs.push(("vm", format!("{} ({})", vm.name, vm.id)));
    }
    let host = volume.host.as_ref();
    let place = host.map_or("nowhere before it is first attached", |host| &host.name);
    pairs.push(("host", place.to_owned()));
    let datastore = output::place(&volume.datastore, volume.moving_to.as_ref());
    pairs.push(("datastore", datastore));
    let with_vm = if volume.delete_with_vm {
        "deleted with it"
    } else {
        "kept"
    };
    pairs.push(("when its VM goes", with_vm.to_owned()));
    pairs.push(("owner", volume.owner.clone()));
    pairs.push(("created", output::time(volume.created_at)));
    if let Some(operation) = operation.filter(|operation| !operation.state.is_over()) {
        pairs.push(("operation", line(operation)));
        pairs.extend(steps(operation).map(|step| ("", step)));
    }
    output::fields(&pairs)
}

async fn create(args: CreateVolume) -> Outcome {
    let CreateVolume {
        name,
        size_mib,
        image,
        terms,
        json,
    } = args;
    let form = model::CreateVolume {
        name,
        size_mib: MiB(size_mib),
        image,
        datastore: terms.datastore,
        delete_with_vm: terms.delete_with_vm,
    };
    let volume = credentials::client()?.create_volume(&form).await?;
    print(&volume, None, json)
}

async fn upload(args: UploadVolume) -> Outcome {
    let UploadVolume {
        file,
        name,
        size_mib,
        sha256,
        format,
        terms,
        json,
    } = args;
    let client = credentials::client()?;
    let image = ImageTerms {
        sha256,
        sha512: None,
        format,
        public: false,
    };
    let mut form = model::CreateVolume {
        name,
        size_mib: MiB(size_mib.unwrap_or(1)),
        image: None,
        datastore: terms.datastore,
        delete_with_vm: terms.delete_with_vm,
    };
    // Before anything is sent for it.
    let wanted = form
        .check()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let volumes = client.volumes().await?;
    if volumes
        .iter()
        .any(|volume| volume.name == wanted.name && volume.state.holds_name())
    {
        let told = format!("there is already a volume named `{}`", wanted.name);
        return Err(Failure::Failed(told));
    }
    let image = copy::upload(&client, &file, &wanted.name, image).await?;
    if let (None, Some(content)) = (size_mib, &image.content) {
        form.size_mib = content.virtual_mib;
    }
    form.image = Some(image.name.to_string());
    let volume = client.create_volume(&form).await?;
    client.act_on_image(image.id, ImageAction::Delete).await?;
    print(&volume, None, json)
}

async fn attach(AttachVolume { which, vm, wait }: AttachVolume) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.volume).await?;
    let vm = vm::resolve(&client, &vm).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let accepted = client.attach_volume(id, vm).await?;
    follow(&client, watch, accepted, &wait).await
}

async fn detach(DetachVolume { which, wait }: DetachVolume) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.volume).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let accepted = client.detach_volume(id).await?;
    follow(&client, watch, accepted, &wait).await
}

async fn grow(args: GrowVolume) -> Outcome {
    let GrowVolume {
        which,
        size_mib,
        wait,
    } = args;
    let client = credentials::client()?;
    let id = resolve(&client, &which.volume).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let size_mib = MiB(size_mib);
    let accepted = client.grow_volume(id, model::GrowVolume { size_mib });
    follow(&client, watch, accepted.await?, &wait).await
}

async fn relocate(args: MoveVolume) -> Outcome {
    let MoveVolume { which, to, wait } = args;
    let client = credentials::client()?;
    let id = resolve(&client, &which.volume).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let form = model::MoveVolume { datastore: to };
    let accepted = client.move_volume(id, &form).await?;
    follow(&client, watch, accepted, &wait).await
}

async fn clone(args: CloneVolume) -> Outcome {
    let CloneVolume {
        which,
        name,
        delete_with_vm,
        wait,
    } = args;
    let client = credentials::client()?;
    let id = resolve(&client, &which.volume).await?;
    let watch = OperationWatch::open(&client, wait.wait, wait.timeout).await?;
    let form = model::CloneVolume {
        name,
        delete_with_vm,
    };
    let accepted = client.clone_volume(id, &form).await?;
    follow(&client, watch, accepted, &wait).await
}

/// To the end of the operation, where that is waited for.
async fn follow(
    client: &Client,
    watch: Option<OperationWatch>,
    accepted: AcceptedVolume,
    wait: &WaitThrough,
) -> Outcome {
    let AcceptedVolume {
        mut volume,
        mut operation,
    } = accepted;
    if let (Some(watch), Some(begun)) = (watch, operation.clone()) {
        operation = Some(watch.until_through(begun).await?);
        volume = client.volume(volume.id).await?;
    }
    print(&volume, operation.as_ref(), wait.json)
}

async fn change(args: ChangeVolume) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.volume).await?;
    let form = model::ChangeVolume {
        delete_with_vm: Some(args.delete_with_vm),
    };
    let volume = client.change_volume(id, &form).await?;
    print(&volume, None, args.json)
}

/// Asks the person once more: afterwards the data is gone.
async fn delete(DeleteVolume { which, yes, json }: DeleteVolume) -> Outcome {
    if !yes && terminal::is_watched() {
        let question = format!("Delete volume {} with all data? [y/N] ", which.volume);
        if !terminal::confirms(&shown(&question)).map_err(|error| cannot_read(&error))? {
            return Err(Failure::Failed("nothing was deleted".to_owned()));
        }
    }
    let client = credentials::client()?;
    let id = resolve(&client, &which.volume).await?;
    print(&client.delete_volume(id).await?, None, json)
}

async fn timeline(VolumeShown { which, json }: VolumeShown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &which.volume).await?;
    let events = client.volume_timeline(id).await?;
    if json.json {
        return output::json(&events);
    }
    output::timeline(&events)
}

/// An id, or the name of the volume that holds it.
async fn resolve(client: &Client, text: &str) -> Outcome<VolumeId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let volumes = client.volumes().await?;
    let named = |volume: &&VolumeView| volume.name.as_str() == text && volume.state.holds_name();
    let found = volumes.iter().find(named).map(|volume| volume.id);
    found.ok_or_else(|| Failure::Failed(format!("volume `{text}` not found")))
}
