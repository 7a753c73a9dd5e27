//! Waiting for a request's state.

use vimana_client::{Client, Notice};
use vimana_model::event::EventKind;
use vimana_model::request::{RequestAction, RequestState, RequestView};
use vimana_model::{RequestId, VmState};

use super::{Notices, Verdict, tell};
use crate::args::RequestWait;
use crate::failure::{Failure, Outcome};

pub struct RequestWatch {
    notices: Notices,
    wanted: RequestState,
}

impl RequestWatch {
    /// Opens the stream where `--wait` was given.
    pub async fn open(client: &Client, wait: RequestWait) -> Outcome<Option<Self>> {
        let Some(wanted) = wait.wait else {
            return Ok(None);
        };
        let notices = Notices::open(client, wait.timeout).await?;
        Ok(Some(Self { notices, wanted }))
    }

    /// Follows `request` until it is in the wanted state, and returns it as it
    /// is then.
    pub async fn until(mut self, mut request: RequestView) -> Outcome<RequestView> {
        let mut told = request.state;
        let mut passed = false;
        loop {
            if told != request.state {
                tell(&request.terms.name, request.state.name());
                told = request.state;
            }
            match judge(&request, self.wanted) {
                _ if passed => return Ok(request),
                Verdict::Reached => return Ok(request),
                Verdict::Lost(why) => return Err(Failure::Failed(why)),
                Verdict::Waiting => {}
            }
            match self.notices.next().await? {
                None => return Err(Failure::Failed(self.too_late(&request))),
                Some(Notice::Connected | Notice::Reset { .. }) => {
                    request = self.look(request.id).await?;
                }
                Some(Notice::Item(item)) => {
                    let vm = request.vm.as_ref().map(|vm| vm.id);
                    match item.request {
                        Some(now) if now.id == request.id => {
                            passed = enters(&item.event.event) == Some(self.wanted);
                            request = now;
                        }
                        // What happens to its VM changes the request, too.
                        _ if vm.is_some() && item.event.vm_id == vm => {
                            request = self.look(request.id).await?;
                        }
                        Some(_) | None => {}
                    }
                }
                Some(Notice::Progress(_)) => {}
            }
        }
    }

    async fn look(&self, id: RequestId) -> Outcome<RequestView> {
        let ask = async |client: &Client| client.request(id).await;
        self.notices.look(ask).await
    }

    fn too_late(&self, request: &RequestView) -> String {
        format!(
            "the request for `{}` is still in state {} after {} s, not in {}",
            request.terms.name,
            request.state.slug(),
            self.notices.seconds,
            self.wanted.slug()
        )
    }
}

/// The state that a request is in right after an event.
fn enters(event: &EventKind) -> Option<RequestState> {
    let approved = EventKind::Request {
        action: Some(RequestAction::Approve),
    };
    if let EventKind::RequestMoved { to } = event {
        Some(*to)
    } else {
        (*event == approved).then_some(RequestState::Provision)
    }
}

fn judge(request: &RequestView, wanted: RequestState) -> Verdict {
    use RequestState as S;
    if request.state == wanted {
        return Verdict::Reached;
    }
    let lost =
        |why: String| Verdict::Lost(format!("the request for `{}` {why}", request.terms.name));
    let said = || {
        let last = request.remarks.last().map(|remark| remark.text.as_str());
        last.filter(|text| !text.is_empty())
            .map_or(String::new(), |text| format!(": {text}"))
    };
    match request.state {
        S::Rejected => lost(format!("was rejected{}", said())),
        S::Withdrawn => lost("was withdrawn".to_owned()),
        S::Released => lost("is over: everything was given back".to_owned()),
        S::Provision | S::Operation | S::Release
            if matches!(
                wanted,
                S::Request | S::Returned | S::Rejected | S::Withdrawn | S::Provision
            ) =>
        {
            lost("is already approved".to_owned())
        }
        S::Provision if has_failed(request) => {
            lost("cannot be fulfilled: its VM has failed".to_owned())
        }
        S::Request | S::Returned | S::Provision | S::Operation | S::Release => Verdict::Waiting,
    }
}

fn has_failed(request: &RequestView) -> bool {
    request
        .vm
        .as_ref()
        .is_some_and(|vm| vm.state == VmState::Failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(state: &str, vm: Option<&str>) -> RequestView {
        let at = "2026-11-22T18:00:00Z";
        let vm =
            vm.map(|state| json!({ "id": "vm_00000000000000000000000000000001", "state": state }));
        serde_json::from_value(json!({
            "id": "req_00000000000000000000000000000001",
            "tenant_id": "tenant_00000000000000000000000000000001", "requester": "ann",
            "state": state, "state_since": at, "vm": vm, "generation": 1, "created_at": at,
            "terms": { "name": "web-1", "image": "demo", "flavor": "tiny" },
            "remarks": [{ "at": at, "by": "bob", "action": "reject", "text": "no budget",
                          "changes": [] }],
        }))
        .unwrap()
    }

    #[test]
    fn waiting_ends_where_the_wanted_state_is_out_of_reach() {
        let lost = |why: &str| Verdict::Lost(format!("the request for `web-1` {why}"));
        for (state, vm, expected) in [
            ("request", None, Verdict::Waiting),
            ("returned", None, Verdict::Waiting),
            ("rejected", None, lost("was rejected: no budget")),
            ("withdrawn", None, lost("was withdrawn")),
            ("provision", Some("boot"), Verdict::Waiting),
            (
                "provision",
                Some("failed"),
                lost("cannot be fulfilled: its VM has failed"),
            ),
            ("operation", Some("running"), Verdict::Reached),
            ("release", Some("running"), Verdict::Waiting),
            (
                "released",
                Some("done"),
                lost("is over: everything was given back"),
            ),
        ] {
            let verdict = judge(&request(state, vm), RequestState::Operation);
            assert_eq!(verdict, expected, "{state}");
        }
        let approved = request("operation", Some("running"));
        assert_eq!(
            judge(&approved, RequestState::Rejected),
            lost("is already approved")
        );
    }
}
