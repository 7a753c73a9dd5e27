//! The life-cycle, drawn: every state, the ways between them, where the
//! machine is now and where it is being taken. Lying where there is room,
//! standing where there is not.

use leptos::prelude::*;
use vimana_model::VmState;
use vimana_model::event::{EventKind, EventView};
use vimana_model::state::EDGES;
use vimana_model::vm::VmView;
use vimana_ui::{Diagram, Drawing, Node, memo};

use super::way::{Way, way};
use crate::page::tone;

#[component]
pub fn LifecyclePicture(
    vm: ArcRwSignal<VmView>,
    events: ArcRwSignal<Vec<EventView>>,
) -> impl IntoView {
    let current = {
        let vm = vm.clone();
        memo(move || vm.with(|vm| vm.state))
    };
    let going = memo(move || vm.with(way));
    let seen = memo(move || events.with(|events| visited(events)));
    let label = Signal::derive(move || described(current.get(), &going.get()));
    let slugs = |states: &[VmState]| states.iter().map(|state| state.slug()).collect();
    let drawing = move |turn: Turn| {
        view! {
            <Diagram
                drawing=turn.drawing()
                label=label
                current=Signal::derive(move || current.get().slug())
                seen=Signal::derive(move || seen.with(|seen| slugs(seen)))
                way=Signal::derive(move || going.with(|going| slugs(&going.states)))
                back=Signal::derive(move || going.with(|going| going.back))
            />
        }
    };
    view! {
        <figure class="lifecycle">
            {drawing(Turn::Lying)}
            {drawing(Turn::Standing)}
            <figcaption class="unseen">
                "The straight way is Pending, Prolog, Boot, Running, Shutdown, Epilog, Done. " {label}
            </figcaption>
        </figure>
    }
    .into_any()
}

/// What the picture says, for those who do not see it.
fn described(now: VmState, way: &Way) -> String {
    let mut text = format!("The machine is in state {now}: {}", now.meaning());
    let next: Vec<&str> = way
        .states
        .iter()
        .skip(1)
        .map(|state| state.name())
        .collect();
    if !next.is_empty() {
        let verb = if way.back {
            "goes back to"
        } else {
            "goes on to"
        };
        text.push_str(&format!("; it {verb} {}", next.join(", then ")));
    }
    text.push('.');
    text
}

/// States the machine has been in, with the first, which no event enters.
fn visited(events: &[EventView]) -> Vec<VmState> {
    let mut seen = Vec::new();
    for event in events {
        if let EventKind::State { from, to } = event.event {
            if seen.last() != Some(&from) {
                seen.push(from);
            }
            seen.push(to);
        }
    }
    seen
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Lying,
    Standing,
}

impl Turn {
    fn drawing(self) -> Drawing {
        let nodes = VmState::ALL
            .into_iter()
            .map(|state| Node {
                slug: state.slug(),
                label: state.name(),
                tone: tone(state),
                at: self.at(state),
            })
            .collect();
        let back_on = (VmState::PoweredOff, VmState::Boot);
        let edges = EDGES
            .into_iter()
            // Without it, what is off would look like a dead end.
            .chain([back_on])
            .map(|(from, to)| (from.slug(), to.slug()))
            .collect();
        let (x, y) = self.at(VmState::Unknown);
        let half = self.half();
        Drawing {
            name: match self {
                Self::Lying => "lying",
                Self::Standing => "standing",
            },
            view_box: match self {
                Self::Lying => "0 0 940 236",
                Self::Standing => "0 0 340 432",
            },
            half,
            nodes,
            edges,
            asides: vec![((x - half.0, y - 24), "from anywhere")],
        }
    }

    /// Half of a state's box.
    const fn half(self) -> (i32, i32) {
        match self {
            Self::Lying => (47, 16),
            Self::Standing => (43, 16),
        }
    }

    /// Centre of a state's box.
    fn at(self, state: VmState) -> (i32, i32) {
        let (along, across) = grid(state);
        match self {
            Self::Lying => (52 + along * 139, 118 + across * 88),
            Self::Standing => (170 + across * 124, 24 + along * 64),
        }
    }
}

/// Where a state stands: along the straight way, and beside it. Around Running
/// stand the states it is taken to and comes back from; Stopped stands on the
/// way back to Pending.
const fn grid(state: VmState) -> (i32, i32) {
    match state {
        VmState::Pending => (0, 0),
        VmState::Prolog => (1, 0),
        VmState::Boot => (2, 0),
        VmState::Running => (3, 0),
        VmState::Shutdown => (4, 0),
        VmState::Epilog => (5, 0),
        VmState::Done => (6, 0),
        VmState::Stopped => (1, -1),
        VmState::Suspended => (3, -1),
        VmState::Migrate => (4, -1),
        VmState::Hold => (0, 1),
        VmState::PoweredOff => (3, 1),
        VmState::Unknown => (5, 1),
        VmState::Failed => (6, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_states_share_a_place() {
        for turn in [Turn::Lying, Turn::Standing] {
            let half = turn.half();
            for a in VmState::ALL {
                for b in VmState::ALL {
                    let ((ax, ay), (bx, by)) = (turn.at(a), turn.at(b));
                    let apart = (ax - bx).abs() >= half.0 * 2 || (ay - by).abs() >= half.1 * 2;
                    assert!(a == b || apart, "{a} and {b}");
                }
            }
        }
    }

    #[test]
    fn every_edge_of_the_standard_picture_is_drawn() {
        let edges = Turn::Lying.drawing().edges;
        for (from, to) in EDGES {
            assert!(edges.contains(&(from.slug(), to.slug())), "{from} → {to}");
        }
    }
}
