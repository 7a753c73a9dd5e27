//! Hold, release, shut down, delete.

use vimana_client::Client;
use vimana_model::vm::{AcceptedView, VmView};

use super::resolve;
use crate::args::{Change, Json};
use crate::failure::Outcome;
use crate::text::shown;
use crate::wait::Watch;
use crate::{credentials, output};

pub async fn hold(args: Change) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    let watch = Watch::open(&client, args.wait).await?;
    let vm = client.hold_vm(id).await?;
    report_changed(vm, watch, args.json).await
}

pub async fn release(args: Change) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    let watch = Watch::open(&client, args.wait).await?;
    let vm = client.release_vm(id).await?;
    report_changed(vm, watch, args.json).await
}

pub async fn shutdown(args: Change) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    let watch = Watch::open(&client, args.wait).await?;
    let accepted = client.shutdown_vm(id).await?;
    report_accepted(&client, accepted, watch, args.json).await
}

pub async fn delete(args: Change) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    let watch = Watch::open(&client, args.wait).await?;
    let accepted = client.delete_vm(id).await?;
    report_accepted(&client, accepted, watch, args.json).await
}

/// Waits where asked, then prints the VM and the operation as they are now.
pub async fn report_accepted(
    client: &Client,
    accepted: AcceptedView,
    watch: Option<Watch>,
    Json { json }: Json,
) -> Outcome {
    let mut accepted = accepted;
    if let Some(watch) = watch {
        accepted.vm = watch.until(accepted.vm).await?;
        if json {
            accepted.operation = client.operation(accepted.operation.id).await?;
        }
    }
    if json {
        output::json(&accepted)
    } else {
        output::line(&summary(&accepted.vm))
    }
}

async fn report_changed(vm: VmView, watch: Option<Watch>, Json { json }: Json) -> Outcome {
    let vm = match watch {
        Some(watch) => watch.until(vm).await?,
        None => vm,
    };
    if json {
        output::json(&vm)
    } else {
        output::line(&summary(&vm))
    }
}

fn summary(vm: &VmView) -> String {
    let mut text = format!("{} ({}) is {}", vm.name, vm.id, vm.state.slug());
    if let Some(host) = &vm.host {
        text.push_str(&format!(" on {}", host.name));
    }
    shown(&text)
}
