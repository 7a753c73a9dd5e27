//! Asking for a VM.

use vimana_model::vm::CreateVm;

use super::change::{Answer, follow, report};
use crate::args::Create;
use crate::failure::Outcome;
use crate::wait::VmWatch;
use crate::{credentials, input};

pub async fn create(args: Create) -> Outcome {
    let form = CreateVm {
        name: args.name,
        inputs: input::inputs(&args.preset)?,
        template: args.preset.template,
        image: args.preset.image.unwrap_or_default(),
        flavor: args.preset.flavor.unwrap_or_default(),
        ssh_key: input::ssh_key(args.ssh_key_file)?,
        user_data: input::user_data(args.user_data_file)?,
        datastore: args.preset.datastore,
        hold: args.hold,
    };
    let client = credentials::client()?;
    let watch = VmWatch::open(&client, args.wait).await?;
    let answer = Answer::accepted(client.create_vm(&form).await?);
    for outcome in follow(watch, vec![answer]).await? {
        report(&[outcome?], args.json.json, false)?;
    }
    Ok(())
}
