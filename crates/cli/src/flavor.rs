//! Flavors.

use crate::args::Json;
use crate::failure::Outcome;
use crate::{credentials, output};

pub async fn list(Json { json }: Json) -> Outcome {
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
