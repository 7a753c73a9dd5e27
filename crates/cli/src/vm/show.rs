//! One VM, for people.

use vimana_model::vm::VmView;

use super::resolve;
use crate::args::{Json, Shown};
use crate::failure::Outcome;
use crate::{credentials, operation, output};

pub async fn show(args: Shown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    print(&client.vm(id).await?, args.json)
}

pub fn print(vm: &VmView, Json { json }: Json) -> Outcome {
    if json {
        output::json(vm)
    } else {
        output::fields(&pairs(vm))
    }
}

fn pairs(vm: &VmView) -> Vec<(&'static str, String)> {
    let size = vm.resources;
    let mut pairs = vec![
        ("name", vm.name.to_string()),
        ("id", vm.id.to_string()),
        (
            "state",
            format!("{} since {}", vm.state.slug(), output::time(vm.state_since)),
        ),
    ];
    if let Some(pending) = &vm.pending {
        pairs.push(("waits", pending.message.clone()));
    }
    if let Some(failure) = &vm.failure {
        let why = format!("during {}: {}", failure.during.slug(), failure.reason);
        pairs.push(("failed", why));
    }
    let host = match &vm.host {
        Some(host) => format!("{} (zone {})", host.name, host.zone),
        None => "-".to_owned(),
    };
    pairs.extend([
        ("host", host),
        ("image", vm.image.to_string()),
        (
            "flavor",
            format!(
                "{}: {} vCPU{}, {} memory, {} disk",
                vm.flavor,
                size.vcpus,
                if size.vcpus == 1 { "" } else { "s" },
                size.memory_mib,
                size.disk_mib
            ),
        ),
        (
            "datastore",
            output::place(&vm.datastore, vm.moving_to.as_ref()),
        ),
        ("owner", vm.owner.clone()),
        ("created", output::time(vm.created_at)),
    ]);
    if let Some(request) = vm.request_id {
        pairs.push(("request", request.to_string()));
    }
    if let Some(operation) = &vm.operation {
        pairs.push(("operation", operation::line(operation)));
        pairs.extend(operation::steps(operation).map(|step| ("", step)));
    }
    pairs
}
