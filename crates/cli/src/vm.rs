//! VMs.

mod change;
mod create;
mod resolve;
mod show;

use vimana_client::VmFilter;
use vimana_model::VmState;
use vimana_model::migration::MigrateVm;
use vimana_model::vm::PowerOffVm;

use crate::args::{Migrate, PowerOff, Remove, Resize, Shown, Vm, VmList};
use crate::failure::{Failure, Outcome};
use crate::input::cannot_read;
use crate::limits::MAX_LISTED_VMS;
use crate::text::shown;
use crate::{console, credentials, operation, output, terminal};

pub use change::Answer;
use change::{Ask, change};
pub use resolve::resolve;
pub use show::print;

pub async fn run(command: Vm) -> Outcome {
    match command {
        Vm::Create(args) => create::create(args).await,
        Vm::List(args) => list(args).await,
        Vm::Show(args) => show::show(args).await,
        Vm::Hold(args) => change(args, Ask::Hold).await,
        Vm::Release(args) => change(args, Ask::Release).await,
        Vm::Suspend(args) => change(args, Ask::Suspend).await,
        Vm::Stop(args) => change(args, Ask::Stop).await,
        Vm::Resume(args) => change(args, Ask::Resume).await,
        Vm::PowerOff(PowerOff {
            force,
            change: args,
        }) => change(args, Ask::PowerOff(PowerOffVm { force })).await,
        Vm::Start(args) => change(args, Ask::Start).await,
        Vm::Reboot(args) => change(args, Ask::Reboot).await,
        Vm::Reset(args) => change(args, Ask::Reset).await,
        Vm::Resize(Resize { size, change: args }) => change(args, Ask::Resize(size.into())).await,
        Vm::Migrate(Migrate {
            to: host,
            datastore,
            mode,
            max_downtime,
            bandwidth,
            post_copy,
            change: args,
        }) => {
            let form = MigrateVm {
                host,
                datastore,
                mode,
                max_downtime_ms: max_downtime,
                max_mib_per_s: bandwidth,
                post_copy,
            };
            change(args, Ask::Migrate(form)).await
        }
        Vm::Retry(args) => change(args, Ask::Retry).await,
        Vm::Shutdown(args) => remove(args, Ask::Shutdown).await,
        Vm::Delete(args) => remove(args, Ask::Delete).await,
        Vm::Cancel(args) => operation::cancel_of_vm(args).await,
        Vm::Console(args) => console::console(args).await,
        Vm::Timeline(args) => timeline(args).await,
    }
}

/// Asks the person once more: afterwards the data is gone.
async fn remove(Remove { yes, change: args }: Remove, ask: Ask) -> Outcome {
    if !yes && terminal::is_watched() {
        let question = format!(
            "Remove {} with everything on the disk? [y/N] ",
            args.vms.join(", ")
        );
        if !terminal::confirms(&shown(&question)).map_err(|error| cannot_read(&error))? {
            return Err(Failure::Failed("nothing was removed".to_owned()));
        }
    }
    change(args, ask).await
}

async fn list(args: VmList) -> Outcome {
    let VmList { all, state, json } = args;
    let states = match (all, state.is_empty()) {
        (true, _) => Vec::new(),
        (false, false) => state,
        (false, true) => VmState::ALL
            .into_iter()
            .filter(|state| !state.is_final())
            .collect(),
    };
    let filter = VmFilter {
        name: None,
        states,
        limit: Some(MAX_LISTED_VMS),
    };
    let vms = credentials::client()?.vms(&filter).await?;
    if u32::try_from(vms.len()).is_ok_and(|count| count >= MAX_LISTED_VMS) {
        eprintln!("vimana: there may be more; these are the newest {MAX_LISTED_VMS}");
    }
    if json.json {
        return output::json(&vms);
    }
    let rows: Vec<_> = vms
        .iter()
        .map(|vm| {
            let host = vm.host.as_ref().map_or("-", |host| host.name.as_str());
            [
                vm.name.to_string(),
                vm.state.slug().to_owned(),
                host.to_owned(),
                vm.flavor.to_string(),
                vm.image.to_string(),
                vm.owner.clone(),
                output::time(vm.created_at),
                vm.id.to_string(),
            ]
        })
        .collect();
    let titles = [
        "NAME", "STATE", "HOST", "FLAVOR", "IMAGE", "OWNER", "CREATED", "ID",
    ];
    output::table(titles, &rows, "no VMs")
}

async fn timeline(args: Shown) -> Outcome {
    let client = credentials::client()?;
    let id = resolve(&client, &args.which.vm).await?;
    let events = client.vm_timeline(id).await?;
    if args.json.json {
        return output::json(&events);
    }
    output::timeline(&events)
}
