//! Everything that is asked of VMs that are there: of one, or of several at
//! once.

use serde::{Serialize, Serializer};
use vimana_client::Client;
use vimana_model::migration::{MigrateVm, MigrationResult};
use vimana_model::operation::OperationView;
use vimana_model::vm::{AcceptedView, PowerOffVm, ResizeVm, VmView};
use vimana_model::{Result, VmId};

use super::resolve;
use crate::args::Change;
use crate::failure::{Failure, Outcome};
use crate::text::shown;
use crate::wait::VmWatch;
use crate::{credentials, output};

/// What is asked.
#[derive(Clone, Debug)]
pub enum Ask {
    Hold,
    Release,
    Suspend,
    Stop,
    Resume,
    PowerOff(PowerOffVm),
    Start,
    Reboot,
    Reset,
    Resize(ResizeVm),
    Migrate(MigrateVm),
    Retry,
    Shutdown,
    Delete,
}

/// What was answered, as it looks by now.
#[derive(Clone, Debug)]
pub struct Answer {
    pub vm: VmView,
    /// The operation that was asked for, or the one that goes on with it.
    pub operation: Option<OperationView>,
    /// Whether the operation is part of the answer.
    pub accepted: bool,
}

impl Answer {
    pub fn accepted(AcceptedView { vm, operation }: AcceptedView) -> Self {
        Self {
            vm,
            operation: Some(operation),
            accepted: true,
        }
    }

    fn changed(vm: VmView, operation: Option<OperationView>) -> Self {
        Self {
            vm,
            operation,
            accepted: false,
        }
    }
}

/// As the REST interface answers it; what a migration took stands beside that.
impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Accepted<'a> {
            vm: &'a VmView,
            operation: &'a OperationView,
            #[serde(flatten)]
            result: Option<MigrationResult>,
        }
        match (&self.operation, self.accepted) {
            (Some(operation), true) => Accepted {
                vm: &self.vm,
                operation,
                result: result(operation),
            }
            .serialize(serializer),
            (Some(_) | None, _) => self.vm.serialize(serializer),
        }
    }
}

impl Ask {
    async fn of(&self, client: &Client, id: VmId) -> Result<Answer> {
        let accepted = match self {
            Self::Hold => return Ok(Answer::changed(client.hold_vm(id).await?, None)),
            Self::Release => {
                let vm = client.release_vm(id).await?;
                let waits = vm.operation.clone().filter(|it| !it.state.is_over());
                return Ok(Answer::changed(vm, waits));
            }
            Self::Suspend => client.suspend_vm(id).await,
            Self::Stop => client.stop_vm(id).await,
            Self::Resume => client.resume_vm(id).await,
            Self::PowerOff(form) => client.power_off_vm(id, *form).await,
            Self::Start => client.start_vm(id).await,
            Self::Reboot => client.reboot_vm(id).await,
            Self::Reset => client.reset_vm(id).await,
            Self::Resize(form) => client.resize_vm(id, form).await,
            Self::Migrate(form) => client.migrate_vm(id, form).await,
            Self::Retry => client.retry_vm(id).await,
            Self::Shutdown => client.shutdown_vm(id).await,
            Self::Delete => client.delete_vm(id).await,
        };
        accepted.map(Answer::accepted)
    }
}

/// Asks it of every VM. A name that means nothing is found before anything is
/// asked; a VM that refuses does not keep the others from being asked.
pub async fn change(args: Change, ask: Ask) -> Outcome {
    let Change { vms, wait, json } = args;
    let client = credentials::client()?;
    let mut ids: Vec<VmId> = Vec::with_capacity(vms.len());
    for name in &vms {
        let id = resolve(&client, name).await?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    let watch = VmWatch::open(&client, wait).await?;
    let mut answers = Vec::with_capacity(ids.len());
    let mut failures = Vec::new();
    for id in &ids {
        match ask.of(&client, *id).await {
            Ok(answer) => answers.push(answer),
            Err(error) => failures.push(Failure::from(error)),
        }
    }
    let mut through = Vec::with_capacity(answers.len());
    for outcome in follow(watch, answers).await? {
        match outcome {
            Ok(answer) => through.push(answer),
            Err(failure) => failures.push(failure),
        }
    }
    let printed = report(&through, json.json, vms.len() > 1);
    if failures.is_empty() {
        return printed;
    }
    failures.iter().for_each(Failure::tell);
    Err(Failure::Told)
}

/// Waits where asked.
pub async fn follow(watch: Option<VmWatch>, answers: Vec<Answer>) -> Outcome<Vec<Outcome<Answer>>> {
    match watch {
        Some(watch) => watch.until(answers).await,
        None => Ok(answers.into_iter().map(Ok).collect()),
    }
}

/// Prints how things are now; as an array where `several` were asked about.
pub fn report(answers: &[Answer], json: bool, several: bool) -> Outcome {
    if json && several {
        return output::json(&answers);
    }
    for answer in answers {
        if json {
            output::json(answer)?;
        } else {
            output::line(&summary(answer))?;
        }
    }
    Ok(())
}

fn result(operation: &OperationView) -> Option<MigrationResult> {
    operation.migration.as_ref()?.result
}

fn summary(Answer { vm, operation, .. }: &Answer) -> String {
    let mut text = format!("{} ({}) is {}", vm.name, vm.id, vm.state.slug());
    if let Some(host) = &vm.host {
        text.push_str(&format!(" on {}", host.name));
    }
    let blackout_ms = operation.as_ref().and_then(|it| result(it)?.blackout_ms);
    if let Some(ms) = blackout_ms {
        text.push_str(&format!("; it stood still for {ms} ms"));
    }
    if let Some(operation) = operation.as_ref().filter(|it| !it.state.is_over()) {
        text.push_str(&format!(
            "; its {} ({}) goes on",
            operation.kind, operation.id
        ));
    }
    shown(&text)
}
