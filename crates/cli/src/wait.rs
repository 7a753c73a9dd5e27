//! `--wait`: following the event stream until a VM is where it should be.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::Instant;
use vimana_client::{Client, Notice};
use vimana_model::event::EventKind;
use vimana_model::operation::OperationState;
use vimana_model::vm::VmView;
use vimana_model::{Result, VmState};

use crate::args::Wait;
use crate::failure::{Failure, Outcome};
use crate::text::shown;

/// An event stream that was open before the thing to wait for was asked, so
/// that nothing is missed, however quickly it happens.
pub struct Watch {
    client: Client,
    notices: BoxStream<'static, Result<Notice>>,
    wanted: VmState,
    seconds: u64,
    deadline: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    Waiting,
    /// It will not get there; says why, with the VM as the subject.
    Lost(String),
}

impl Watch {
    /// Opens the stream where `--wait` was given.
    pub async fn open(client: &Client, wait: Wait) -> Outcome<Option<Self>> {
        let Some(wanted) = wait.wait else {
            return Ok(None);
        };
        let mut watch = Self {
            client: client.clone(),
            notices: client.events(None).boxed(),
            wanted,
            seconds: wait.timeout,
            deadline: Instant::now() + Duration::from_secs(wait.timeout),
        };
        match watch.next().await? {
            Some(Notice::Connected) => Ok(Some(watch)),
            Some(Notice::Item(_) | Notice::Reset { .. }) | None => {
                Err(Failure::Failed("the event stream does not open".to_owned()))
            }
        }
    }

    /// Follows `vm` until it is in the wanted state, and returns it as it is
    /// then.
    pub async fn until(mut self, mut vm: VmView) -> Outcome<VmView> {
        let mut passed = false;
        let mut told = vm.state;
        loop {
            if told != vm.state {
                tell(&vm);
                told = vm.state;
            }
            match judge(&vm, self.wanted) {
                _ if passed => return Ok(vm),
                Verdict::Reached => return Ok(vm),
                Verdict::Lost(why) => return Err(Failure::Failed(format!("`{}` {why}", vm.name))),
                Verdict::Waiting => {}
            }
            match self.next().await? {
                None => return Err(Failure::Failed(self.too_late(&vm))),
                Some(Notice::Connected | Notice::Reset { .. }) => {
                    vm = self.client.vm(vm.id).await?;
                }
                Some(Notice::Item(item)) if item.event.vm_id == Some(vm.id) => {
                    let wanted = self.wanted;
                    passed =
                        matches!(item.event.event, EventKind::State { to, .. } if to == wanted);
                    vm = match item.vm {
                        Some(vm) => vm,
                        None => self.client.vm(vm.id).await?,
                    };
                }
                Some(Notice::Item(_)) => {}
            }
        }
    }

    /// The next notice, or `None` when the time is up.
    async fn next(&mut self) -> Outcome<Option<Notice>> {
        match tokio::time::timeout_at(self.deadline, self.notices.next()).await {
            Err(_) => Ok(None),
            Ok(Some(notice)) => Ok(Some(notice?)),
            Ok(None) => Err(Failure::Failed("the event stream has ended".to_owned())),
        }
    }

    fn too_late(&self, vm: &VmView) -> String {
        let mut message = format!(
            "`{}` is still {} after {} s, not {}",
            vm.name,
            vm.state.slug(),
            self.seconds,
            self.wanted.slug()
        );
        if let Some(pending) = &vm.pending {
            message.push_str(": ");
            message.push_str(&pending.message);
        }
        message
    }
}

fn judge(vm: &VmView, wanted: VmState) -> Verdict {
    use VmState as S;
    if vm.state == wanted {
        return Verdict::Reached;
    }
    let working = vm
        .operation
        .as_ref()
        .is_some_and(|operation| operation.state == OperationState::Running);
    match vm.state {
        S::Done => Verdict::Lost(format!("is done and will never be {}", wanted.slug())),
        // A failed VM may well be on its way out.
        S::Failed if !working => Verdict::Lost(match &vm.failure {
            Some(failure) => format!(
                "failed during {}: {}",
                failure.during.slug(),
                failure.reason
            ),
            None => "failed".to_owned(),
        }),
        S::Failed
        | S::Pending
        | S::Hold
        | S::Prolog
        | S::Boot
        | S::Running
        | S::Migrate
        | S::Suspended
        | S::Stopped
        | S::PoweredOff
        | S::Shutdown
        | S::Epilog
        | S::Unknown => Verdict::Waiting,
    }
}

/// Progress for a person who watches.
fn tell(vm: &VmView) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = writeln!(err, "{}: {}", shown(vm.name.as_str()), vm.state);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vm(state: &str, operation: &str) -> VmView {
        let at = "2026-11-22T18:00:00Z";
        let id = "vm_00000000000000000000000000000001";
        let failure = (state == "failed").then(|| json!({ "during": "boot", "reason": "no disk" }));
        serde_json::from_value(json!({
            "id": id, "name": "web-1", "owner": "ann", "state": state, "state_since": at,
            "tenant_id": "tenant_00000000000000000000000000000001",
            "failure": failure, "pending": null, "flavor": "tiny", "image": "demo",
            "image_id": "image_00000000000000000000000000000001",
            "resources": { "vcpus": 1, "memory_mib": 128, "disk_mib": 1024 },
            "host": null, "run_epoch": 0, "generation": 1, "ssh_key": null,
            "has_user_data": false, "created_at": at,
            "operation": {
                "id": "op_00000000000000000000000000000001", "vm_id": id, "kind": "delete",
                "state": operation, "steps": [], "requested_by": "ann", "error": null,
                "created_at": at, "ended_at": null,
            },
        }))
        .unwrap()
    }

    #[test]
    fn waiting_ends_where_the_wanted_state_is_out_of_reach() {
        let lost = |why: &str| Verdict::Lost(why.to_owned());
        for (state, operation, expected) in [
            ("running", "succeeded", Verdict::Reached),
            ("boot", "running", Verdict::Waiting),
            ("unknown", "running", Verdict::Waiting),
            (
                "done",
                "succeeded",
                lost("is done and will never be running"),
            ),
            ("failed", "failed", lost("failed during boot: no disk")),
            ("failed", "running", Verdict::Waiting),
        ] {
            assert_eq!(
                judge(&vm(state, operation), VmState::Running),
                expected,
                "{state}"
            );
        }
        assert_eq!(
            judge(&vm("failed", "failed"), VmState::Failed),
            Verdict::Reached
        );
        assert_eq!(
            judge(&vm("done", "succeeded"), VmState::Done),
            Verdict::Reached
        );
    }
}
