//! Images.

use vimana_model::unit::MiB;

use crate::args::Json;
use crate::failure::Outcome;
use crate::{credentials, output};

pub async fn list(Json { json }: Json) -> Outcome {
    let images = credentials::client()?.images().await?;
    if json {
        return output::json(&images);
    }
    let rows: Vec<_> = images
        .iter()
        .map(|image| {
            [
                image.name.to_string(),
                image.format.name().to_owned(),
                stored(image.size_bytes),
                image.virtual_mib.to_string(),
                output::time(image.created_at),
                image.id.to_string(),
            ]
        })
        .collect();
    let titles = ["NAME", "FORMAT", "STORED", "DISK", "SINCE", "ID"];
    output::table(titles, &rows, "no images")
}

/// Rounded up: an image never takes nothing.
fn stored(bytes: u64) -> String {
    MiB(bytes.div_ceil(1 << 20)).to_string()
}
