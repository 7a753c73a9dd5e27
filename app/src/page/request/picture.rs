//! The manual life-cycle, drawn: Request, Provision, Operation, Release, and
//! how a request ends before.

use leptos::prelude::*;
use vimana_model::event::{EventKind, EventView};
use vimana_model::request::{RequestAction, RequestState, RequestView};
use vimana_ui::{Diagram, Drawing, Node, memo};

use crate::live;
use crate::page::request_tone;

/// Every way a request can go.
const EDGES: [(RequestState, RequestState); 9] = {
    use RequestState::{
        Operation, Provision, Rejected, Release, Released, Request, Returned, Withdrawn,
    };
    [
        (Request, Provision),
        (Provision, Operation),
        (Operation, Release),
        (Release, Operation),
        (Release, Released),
        (Request, Returned),
        (Returned, Request),
        (Request, Rejected),
        (Request, Withdrawn),
    ]
};

#[component]
pub fn RequestPicture(request: ArcRwSignal<RequestView>, events: live::Timeline) -> impl IntoView {
    let current = memo(move || request.with(|request| request.state));
    let seen = memo(move || events.with(|events| visited(events)));
    let label = Signal::derive(move || {
        let now = current.get();
        format!("The request is in state {now}: {}.", now.meaning())
    });
    let drawing = move |turn: Turn| {
        view! {
            <Diagram
                drawing=turn.drawing()
                label=label
                current=Signal::derive(move || current.get().slug())
                seen=Signal::derive(move || seen.with(|seen| seen.iter().map(|state| state.slug()).collect()))
                way=Signal::derive(Vec::new)
                back=Signal::derive(|| false)
            />
        }
    };
    view! {
        <figure class="lifecycle">
            {drawing(Turn::Lying)}
            {drawing(Turn::Standing)}
            <figcaption class="unseen">
                "The straight way is Request, Provision, Operation, Release, Released. " {label}
            </figcaption>
        </figure>
    }
    .into_any()
}

/// States the request has been in, oldest first.
fn visited(events: &[EventView]) -> Vec<RequestState> {
    let mut seen = Vec::new();
    for event in events {
        match event.event {
            EventKind::Request { action } => seen.extend(enters(action)),
            EventKind::RequestMoved { to } => seen.push(to),
            EventKind::Requested { .. }
            | EventKind::State { .. }
            | EventKind::StepRetried { .. }
            | EventKind::Undoing { .. }
            | EventKind::OperationFailed { .. }
            | EventKind::Cancelling { .. }
            | EventKind::Cancelled { .. }
            | EventKind::Resized { .. }
            | EventKind::SnapshotTaken { .. }
            | EventKind::Reverted { .. }
            | EventKind::SnapshotRemoved { .. }
            | EventKind::BackedUp { .. }
            | EventKind::BackupDeleted { .. }
            | EventKind::VolumeCreated { .. }
            | EventKind::VolumeAttached { .. }
            | EventKind::VolumeDetached { .. }
            | EventKind::VolumeGrown { .. }
            | EventKind::VolumeMoved { .. }
            | EventKind::DiskMoved { .. }
            | EventKind::VolumeCame { .. }
            | EventKind::VolumeDeleted { .. }
            | EventKind::VolumeRemoved { .. }
            | EventKind::Placed { .. }
            | EventKind::Migrated { .. }
            | EventKind::Expected { .. }
            | EventKind::Cleared {}
            | EventKind::NotPlaced { .. }
            | EventKind::Step { .. }
            | EventKind::Failed { .. }
            | EventKind::Note { .. }
            | EventKind::ConsoleOpened
            | EventKind::HostConnected
            | EventKind::HostDisconnected
            | EventKind::HostSilent
            | EventKind::HostRefused { .. }
            | EventKind::HostDoubted { .. }
            | EventKind::HostCordoned
            | EventKind::HostEnabled
            | EventKind::HostDraining { .. }
            | EventKind::HostStuck { .. }
            | EventKind::HostDrained
            | EventKind::HostCertified
            | EventKind::HostRevoked
            | EventKind::OrphanFound { .. }
            | EventKind::OrphanGone { .. }
            | EventKind::OrphanDiscarded { .. }
            | EventKind::HostFenced { .. }
            | EventKind::Image { .. }
            | EventKind::ImageRefreshed { .. }
            | EventKind::ImageRefreshSet { .. } => {}
        }
    }
    seen
}

/// The state something done leads to at once.
const fn enters(action: Option<RequestAction>) -> Option<RequestState> {
    match action {
        None | Some(RequestAction::Answer) => Some(RequestState::Request),
        Some(RequestAction::Approve) => Some(RequestState::Provision),
        Some(RequestAction::Reject) => Some(RequestState::Rejected),
        Some(RequestAction::AskBack) => Some(RequestState::Returned),
        Some(RequestAction::Withdraw) => Some(RequestState::Withdrawn),
        Some(RequestAction::AskRelease) => Some(RequestState::Release),
        Some(RequestAction::Keep) => Some(RequestState::Operation),
        // Over when nothing of the machine is left.
        Some(RequestAction::ConfirmRelease) => None,
    }
}

#[derive(Clone, Copy)]
enum Turn {
    Lying,
    Standing,
}

impl Turn {
    fn drawing(self) -> Drawing {
        let nodes = RequestState::ALL
            .into_iter()
            .map(|state| Node {
                slug: state.slug(),
                label: state.name(),
                tone: request_tone(state),
                at: self.at(state),
            })
            .collect();
        Drawing {
            name: match self {
                Self::Lying => "lying",
                Self::Standing => "standing",
            },
            view_box: match self {
                Self::Lying => "0 0 940 180",
                Self::Standing => "0 0 340 304",
            },
            half: match self {
                Self::Lying => (56, 17),
                Self::Standing => (44, 16),
            },
            nodes,
            edges: EDGES
                .into_iter()
                .map(|(from, to)| (from.slug(), to.slug()))
                .collect(),
            asides: Vec::new(),
        }
    }

    fn at(self, state: RequestState) -> (i32, i32) {
        let (along, across) = grid(state);
        match self {
            Self::Lying => (70 + along * 200, 90 + across * 66),
            Self::Standing => (170 + across * 122, 24 + along * 64),
        }
    }
}

/// Where a state stands: along the straight way, and beside it.
const fn grid(state: RequestState) -> (i32, i32) {
    match state {
        RequestState::Request => (0, 0),
        RequestState::Provision => (1, 0),
        RequestState::Operation => (2, 0),
        RequestState::Release => (3, 0),
        RequestState::Released => (4, 0),
        RequestState::Returned => (0, -1),
        RequestState::Rejected => (0, 1),
        RequestState::Withdrawn => (1, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_leads_along_a_drawn_way() {
        for action in RequestAction::ALL {
            let Some(to) = enters(Some(action)) else {
                continue;
            };
            for from in RequestState::ALL {
                // A question that waits is overtaken by the decision.
                let overtaken = from == RequestState::Returned && to != RequestState::Request;
                if action.judge(from).is_ok() && !overtaken {
                    assert!(EDGES.contains(&(from, to)), "{action}: {from} → {to}");
                }
            }
        }
    }
}
