//! Asking for a VM.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use vimana_model::vm::CreateVm;

use super::change::report_accepted;
use crate::args::Create;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::limits::MAX_INPUT_FILE_BYTES;
use crate::wait::Watch;

pub async fn create(args: Create) -> Outcome {
    let form = CreateVm {
        name: args.name,
        image: args.image,
        flavor: args.flavor,
        ssh_key: args
            .ssh_key_file
            .map(|path| read(&path).map(|key| key.trim().to_owned()))
            .transpose()?,
        user_data: args.user_data_file.map(|path| read(&path)).transpose()?,
        hold: args.hold,
    };
    let client = credentials::client()?;
    let watch = Watch::open(&client, args.wait).await?;
    let accepted = client.create_vm(&form).await?;
    report_accepted(&client, accepted, watch, args.json).await
}

fn read(path: &Path) -> Outcome<String> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::Failed(format!("cannot read {}: {why}", path.display()))
    };
    let file = File::open(path).map_err(|error| refused(&error))?;
    let mut bytes = Vec::new();
    file.take(MAX_INPUT_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(&error))?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > MAX_INPUT_FILE_BYTES {
        let limit = MAX_INPUT_FILE_BYTES >> 10;
        return Err(refused(&format_args!("it is larger than {limit} KiB")));
    }
    String::from_utf8(bytes).map_err(|_| refused(&"it is not text in UTF-8"))
}
