//! Flavors.

use vimana_model::flavor::{ChangeFlavor as Change, CreateFlavor as Form, FlavorView};
use vimana_model::unit::MiB;

use crate::args::{ChangeFlavor, CreateFlavor, DeleteFlavor, Flavor, Json};
use crate::failure::Outcome;
use crate::{credentials, output};

pub async fn run(command: Flavor) -> Outcome {
    match command {
        Flavor::List(json) => list(json).await,
        Flavor::Create(args) => create(args).await,
        Flavor::Change(args) => change(args).await,
        Flavor::Delete(args) => delete(args).await,
    }
}

async fn list(Json { json }: Json) -> Outcome {
    let flavors = credentials::client()?.flavors().await?;
    if json {
        return output::json(&flavors);
    }
    let rows: Vec<_> = flavors
        .iter()
        .map(|flavor| {
            [
                flavor.name.to_string(),
                flavor.resources.vcpus.to_string(),
                flavor.resources.memory_mib.to_string(),
                flavor.resources.disk_mib.to_string(),
            ]
        })
        .collect();
    output::table(["NAME", "VCPUS", "MEMORY", "DISK"], &rows, "no flavors")
}

async fn create(args: CreateFlavor) -> Outcome {
    let form = Form {
        name: args.name,
        vcpus: args.vcpus,
        memory_mib: MiB(args.memory),
        disk_mib: MiB(args.disk),
    };
    let made = credentials::client()?.create_flavor(&form).await?;
    report(&made, args.json, "is")
}

async fn change(args: ChangeFlavor) -> Outcome {
    let form = Change {
        vcpus: args.vcpus,
        memory_mib: args.memory.map(MiB),
        disk_mib: args.disk.map(MiB),
    };
    let client = credentials::client()?;
    let changed = client.change_flavor(&args.name, &form).await?;
    report(&changed, args.json, "is now")
}

async fn delete(args: DeleteFlavor) -> Outcome {
    let gone = credentials::client()?.retire_flavor(&args.name).await?;
    report(&gone, args.json, "is retired; it was")
}

fn report(flavor: &FlavorView, Json { json }: Json, is: &str) -> Outcome {
    if json {
        return output::json(flavor);
    }
    let FlavorView {
        name, resources, ..
    } = flavor;
    output::line(&format!(
        "flavor {name} {is} {} vCPUs, {} memory, {} disk",
        resources.vcpus, resources.memory_mib, resources.disk_mib
    ))
}
