//! Waiting for VMs: for what was asked to be through, or for a state.

use vimana_client::{Client, Notice};
use vimana_model::event::{EventKind, StreamItem};
use vimana_model::operation::{OperationState, OperationView};
use vimana_model::state::Tone;
use vimana_model::vm::VmView;
use vimana_model::{Timestamp, VmState};

use super::{Notices, Verdict, tell};
use crate::args::Wait;
use crate::failure::{Failure, Outcome};
use crate::vm::Answer;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// What was asked is through.
    Through,
    State(VmState),
}

pub struct VmWatch {
    notices: Notices,
    goal: Goal,
}

/// One VM on its way.
struct Followed {
    answer: Answer,
    verdict: Verdict,
    /// It was in the wanted state, however briefly.
    passed: bool,
    told: VmState,
}

impl VmWatch {
    /// Opens the stream where `--wait` was given.
    pub async fn open(client: &Client, wait: Wait) -> Outcome<Option<Self>> {
        let goal = match wait.wait {
            None => return Ok(None),
            Some(None) => Goal::Through,
            Some(Some(state)) => Goal::State(state),
        };
        let notices = Notices::open(client, wait.timeout).await?;
        Ok(Some(Self { notices, goal }))
    }

    /// Follows each VM to the goal, or until it can no longer get there, and
    /// says how each is then.
    pub async fn until(mut self, answers: Vec<Answer>) -> Outcome<Vec<Outcome<Answer>>> {
        let mut all: Vec<Followed> = answers.into_iter().map(Followed::new).collect();
        loop {
            for followed in &mut all {
                followed.look(self.goal);
            }
            let mut waiting: Vec<&mut Followed> = all.iter_mut().filter(|f| f.waits()).collect();
            if waiting.is_empty() {
                break;
            }
            match self.notices.next().await? {
                None => {
                    for followed in waiting {
                        followed.verdict = Verdict::Lost(self.too_late(&followed.answer));
                    }
                    break;
                }
                Some(Notice::Connected | Notice::Reset { .. }) => {
                    for followed in waiting {
                        followed.refresh(&self.notices).await?;
                    }
                }
                Some(Notice::Item(item)) => {
                    let concerned = waiting
                        .iter_mut()
                        .find(|followed| item.event.vm_id == Some(followed.answer.vm.id));
                    if let Some(followed) = concerned {
                        followed.take(*item, self.goal, &self.notices).await?;
                    }
                }
                Some(Notice::Progress(_)) => {}
            }
        }
        Ok(all.into_iter().map(Followed::outcome).collect())
    }

    fn too_late(&self, answer: &Answer) -> String {
        let (vm, seconds) = (&answer.vm, self.notices.seconds);
        let mut message = match (self.goal, &answer.operation) {
            (Goal::Through, Some(operation)) => format!(
                "the {} of `{}` is not through after {seconds} s and goes on; the VM is {}",
                operation.kind,
                vm.name,
                vm.state.slug()
            ),
            (Goal::Through, None) => format!("`{}` is {}", vm.name, vm.state.slug()),
            (Goal::State(wanted), _) => format!(
                "`{}` is still {} after {seconds} s, not {}",
                vm.name,
                vm.state.slug(),
                wanted.slug()
            ),
        };
        if let Some(pending) = &vm.pending {
            message.push_str(": ");
            message.push_str(&pending.message);
        }
        message
    }
}

impl Followed {
    fn new(answer: Answer) -> Self {
        Self {
            told: answer.vm.state,
            answer,
            verdict: Verdict::Waiting,
            passed: false,
        }
    }

    fn waits(&self) -> bool {
        self.verdict == Verdict::Waiting
    }

    fn look(&mut self, goal: Goal) {
        let vm = &self.answer.vm;
        if self.told != vm.state {
            tell(vm.name.as_str(), vm.state.name());
            self.told = vm.state;
        }
        if self.waits() {
            self.verdict = judge(&self.answer, goal, self.passed);
        }
    }

    async fn take(&mut self, item: StreamItem, goal: Goal, notices: &Notices) -> Outcome {
        if let (EventKind::State { to, .. }, Goal::State(wanted)) = (&item.event.event, goal) {
            // What happened just before may be told just now.
            let after = is_after(self.answer.operation.as_ref(), item.event.at);
            self.passed |= *to == wanted && after;
        }
        match item.vm {
            Some(vm) => self.answer.vm = vm,
            None => return self.refresh(notices).await,
        }
        self.follow_operation(notices).await
    }

    async fn refresh(&mut self, notices: &Notices) -> Outcome {
        let id = self.answer.vm.id;
        self.answer.vm = notices.look(async |client| client.vm(id).await).await?;
        self.follow_operation(notices).await
    }

    /// The VM shows its newest operation; ours may have been overtaken.
    async fn follow_operation(&mut self, notices: &Notices) -> Outcome {
        let Some(own) = &mut self.answer.operation else {
            return Ok(());
        };
        match &self.answer.vm.operation {
            Some(newest) if newest.id == own.id => own.clone_from(newest),
            Some(_) | None if !own.state.is_over() => {
                let id = own.id;
                *own = notices
                    .look(async |client| client.operation(id).await)
                    .await?;
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    fn outcome(self) -> Outcome<Answer> {
        match self.verdict {
            Verdict::Reached => Ok(self.answer),
            Verdict::Lost(why) => Err(Failure::Failed(why)),
            Verdict::Waiting => Err(Failure::Failed("the wait was broken off".to_owned())),
        }
    }
}

fn judge(answer: &Answer, goal: Goal, passed: bool) -> Verdict {
    match goal {
        Goal::Through => judge_through(answer),
        Goal::State(wanted) => judge_state(answer, wanted, passed),
    }
}

fn judge_through(answer: &Answer) -> Verdict {
    let Some(operation) = &answer.operation else {
        return Verdict::Reached;
    };
    match operation.state {
        OperationState::Succeeded => Verdict::Reached,
        OperationState::Running | OperationState::Undoing => Verdict::Waiting,
        OperationState::Failed | OperationState::Cancelled => {
            Verdict::Lost(why_not(operation, &answer.vm))
        }
    }
}

fn judge_state(answer: &Answer, wanted: VmState, passed: bool) -> Verdict {
    let Answer { vm, operation, .. } = answer;
    let broken = operation.as_ref().filter(|operation| {
        matches!(
            operation.state,
            OperationState::Failed | OperationState::Cancelled
        )
    });
    let succeeded = operation
        .as_ref()
        .is_none_or(|operation| operation.state == OperationState::Succeeded);
    // Being where it was before it was asked says nothing.
    let entered = succeeded || is_after(operation.as_ref(), vm.state_since);
    if passed || (vm.state == wanted && entered) {
        return Verdict::Reached;
    }
    let working = vm
        .operation
        .as_ref()
        .is_some_and(|operation| !operation.state.is_over());
    let lost = |why: String| Verdict::Lost(format!("`{}` {why}", vm.name));
    match (vm.state, broken) {
        (VmState::Done, _) if wanted != VmState::Done => {
            lost(format!("is done and will never be {}", wanted.slug()))
        }
        // A failed VM may well be on its way out.
        (_, _) if working => Verdict::Waiting,
        (VmState::Failed, _) if wanted != VmState::Failed => lost(match &vm.failure {
            Some(failure) => format!(
                "failed during {}: {}",
                failure.during.slug(),
                failure.reason
            ),
            None => "failed".to_owned(),
        }),
        (_, Some(operation)) => Verdict::Lost(why_not(operation, vm)),
        (state, None) if state.tone() == Tone::Resting => lost(format!(
            "is {}, and nothing is under way that could make it {}",
            state.slug(),
            wanted.slug()
        )),
        (_, None) => Verdict::Waiting,
    }
}

/// Whether `at` is no earlier than the moment the operation was asked for.
fn is_after(operation: Option<&OperationView>, at: Timestamp) -> bool {
    operation.is_none_or(|operation| at >= operation.created_at)
}

/// How an operation ended that did not succeed.
fn why_not(operation: &OperationView, vm: &VmView) -> String {
    let mut text = format!("the {} of `{}` ", operation.kind, vm.name);
    match (operation.state, &operation.cancelled_by, &vm.operation) {
        (OperationState::Cancelled, Some(by), _) => {
            text.push_str(&format!("was cancelled by {by}"));
        }
        (OperationState::Cancelled, None, Some(later)) if later.id != operation.id => {
            text.push_str(&format!("was overtaken by its {}", later.kind));
        }
        (OperationState::Cancelled, None, _) => text.push_str("was cancelled"),
        (
            OperationState::Failed
            | OperationState::Running
            | OperationState::Undoing
            | OperationState::Succeeded,
            _,
            _,
        ) => text.push_str("failed"),
    }
    if let Some(error) = &operation.error {
        text.push_str(&format!(": {error}"));
    }
    text.push_str(&format!("; it is {}", vm.state.slug()));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vimana_model::operation::OperationKind;
    use vimana_model::operation::OperationState as O;

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
                "id": "op_00000000000000000000000000000001", "vm_id": id, "kind": "suspend",
                "state": operation, "steps": [], "requested_by": "ann", "error": null,
                "created_at": at, "ended_at": null,
            },
        }))
        .unwrap()
    }

    /// A VM about which an operation of `kind` was asked, as it is now.
    fn asked(state: &str, kind: OperationKind, operation: O) -> Answer {
        let mut vm = vm(state, operation.name());
        let mut own = vm.operation.take().unwrap();
        own.kind = kind;
        own.error = (operation == O::Failed).then(|| "no room".to_owned());
        vm.operation = Some(own.clone());
        Answer {
            vm,
            operation: Some(own),
            accepted: true,
        }
    }

    fn lost(why: &str) -> Verdict {
        Verdict::Lost(why.to_owned())
    }

    #[test]
    fn waiting_ends_where_the_wanted_state_is_out_of_reach() {
        use OperationKind as K;
        let taken_back = "the create of `web-1` failed: no room; it is hold";
        for (state, kind, operation, expected) in [
            ("running", K::Create, O::Succeeded, Verdict::Reached),
            ("running", K::Create, O::Running, Verdict::Reached),
            ("boot", K::Create, O::Running, Verdict::Waiting),
            ("unknown", K::Create, O::Running, Verdict::Waiting),
            ("hold", K::Create, O::Running, Verdict::Waiting),
            ("hold", K::Create, O::Failed, lost(taken_back)),
            (
                "done",
                K::Delete,
                O::Succeeded,
                lost("`web-1` is done and will never be running"),
            ),
            (
                "failed",
                K::Create,
                O::Failed,
                lost("`web-1` failed during boot: no disk"),
            ),
            ("failed", K::Delete, O::Running, Verdict::Waiting),
            (
                "suspended",
                K::Suspend,
                O::Succeeded,
                lost("`web-1` is suspended, and nothing is under way that could make it running"),
            ),
        ] {
            let answer = asked(state, kind, operation);
            let verdict = judge_state(&answer, VmState::Running, false);
            assert_eq!(verdict, expected, "{state} {kind}");
        }
    }

    #[test]
    fn a_state_that_was_there_before_counts_only_after_the_operation() {
        let verdict = |operation| {
            let mut answer = asked("running", OperationKind::Reboot, operation);
            answer.vm.state_since = Timestamp::from_ms(0);
            judge_state(&answer, VmState::Running, false)
        };
        assert_eq!(verdict(O::Running), Verdict::Waiting);
        assert_eq!(verdict(O::Succeeded), Verdict::Reached);
        assert_eq!(
            verdict(O::Failed),
            lost("the reboot of `web-1` failed: no room; it is running")
        );
    }

    #[test]
    fn a_state_passed_through_was_reached() {
        let answer = asked("running", OperationKind::Create, O::Succeeded);
        assert_eq!(judge_state(&answer, VmState::Boot, true), Verdict::Reached);
        let failed = asked("failed", OperationKind::Create, O::Failed);
        assert_eq!(
            judge_state(&failed, VmState::Failed, false),
            Verdict::Reached
        );
    }

    #[test]
    fn through_means_that_the_operation_succeeded() {
        use OperationKind as K;
        let verdict = |operation| judge_through(&asked("running", K::Stop, operation));
        assert_eq!(verdict(O::Running), Verdict::Waiting);
        assert_eq!(verdict(O::Undoing), Verdict::Waiting);
        assert_eq!(verdict(O::Succeeded), Verdict::Reached);
        assert_eq!(
            verdict(O::Failed),
            lost("the stop of `web-1` failed: no room; it is running")
        );
        let mut cancelled = asked("running", K::Stop, O::Cancelled);
        if let Some(operation) = &mut cancelled.operation {
            operation.cancelled_by = Some("bob".to_owned());
        }
        assert_eq!(
            judge_through(&cancelled),
            lost("the stop of `web-1` was cancelled by bob; it is running")
        );
        let mut nothing = asked("hold", K::Create, O::Running);
        nothing.operation = None;
        assert_eq!(judge_through(&nothing), Verdict::Reached);
    }
}
