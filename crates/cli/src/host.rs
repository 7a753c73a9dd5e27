//! Hosts.

use vimana_model::unit::MiB;

use crate::args::Json;
use crate::failure::Outcome;
use crate::{credentials, output};

pub async fn list(Json { json }: Json) -> Outcome {
    let hosts = credentials::client()?.hosts().await?;
    if json {
        return output::json(&hosts);
    }
    let of = |used: MiB, capacity: MiB| format!("{used} of {capacity}");
    let rows: Vec<_> = hosts
        .iter()
        .map(|host| {
            let state = match host.connected {
                true => host.state.slug().to_owned(),
                false => format!("{}, disconnected", host.state.slug()),
            };
            [
                host.name.to_string(),
                host.zone.to_string(),
                state,
                format!("{}, {}", host.hypervisor, host.accelerator),
                host.vms.to_string(),
                format!("{} of {}", host.used.vcpus, host.capacity.vcpus),
                of(host.used.memory_mib, host.capacity.memory_mib),
                of(host.used.disk_mib, host.capacity.disk_mib),
            ]
        })
        .collect();
    let titles = [
        "NAME",
        "ZONE",
        "STATE",
        "HYPERVISOR",
        "VMS",
        "VCPUS",
        "MEMORY",
        "DISK",
    ];
    output::table(titles, &rows, "no hosts")
}
