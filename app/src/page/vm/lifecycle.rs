//! The life-cycle, drawn: every state, the way between them, and where the
//! machine is now. Lying where there is room, standing where there is not.

use leptos::prelude::*;
use vimana_model::VmState;
use vimana_model::event::{EventKind, EventView};
use vimana_model::state::EDGES;
use vimana_model::vm::VmView;

use crate::page::tone;

#[component]
pub fn LifecyclePicture(
    vm: ArcRwSignal<VmView>,
    events: ArcRwSignal<Vec<EventView>>,
) -> impl IntoView {
    let current = Memo::new(move |_| vm.with(|vm| vm.state));
    let seen = Memo::new(move |_| events.with(|events| visited(events)));
    view! {
        <figure class="lifecycle">
            <Drawing turn=Turn::Lying current=current seen=seen/>
            <Drawing turn=Turn::Standing current=current seen=seen/>
            <figcaption class="unseen">
                "The straight way is Pending, Prolog, Boot, Running, Shutdown, Epilog, Done. Now: "
                {move || format!("{}, {}.", current.get(), current.get().meaning())}
            </figcaption>
        </figure>
    }
    .into_any()
}

/// States the machine has been in, with the first, which no event enters.
fn visited(events: &[EventView]) -> Vec<VmState> {
    events
        .iter()
        .flat_map(|event| match event.event {
            EventKind::State { from, to } => vec![from, to],
            EventKind::Requested { .. }
            | EventKind::Placed { .. }
            | EventKind::NotPlaced { .. }
            | EventKind::Step { .. }
            | EventKind::Failed { .. }
            | EventKind::Note { .. }
            | EventKind::ConsoleOpened
            | EventKind::HostConnected
            | EventKind::HostDisconnected
            | EventKind::HostSilent => Vec::new(),
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Lying,
    Standing,
}

/// Half of a state's box.
const HALF: (f64, f64) = (47.0, 16.0);

impl Turn {
    const fn slug(self) -> &'static str {
        match self {
            Self::Lying => "lying",
            Self::Standing => "standing",
        }
    }

    const fn view_box(self) -> &'static str {
        match self {
            Self::Lying => "0 0 940 236",
            Self::Standing => "0 0 340 430",
        }
    }

    /// Centre of a state's box.
    fn at(self, state: VmState) -> (f64, f64) {
        let (along, across) = grid(state);
        match self {
            Self::Lying => (52.0 + along * 139.3, 118.0 + across * 88.0),
            Self::Standing => (170.0 + across * 118.0, 24.0 + along * 63.6),
        }
    }
}

/// Where a state stands: along the straight way, and beside it.
const fn grid(state: VmState) -> (f64, f64) {
    match state {
        VmState::Pending => (0.0, 0.0),
        VmState::Prolog => (1.0, 0.0),
        VmState::Boot => (2.0, 0.0),
        VmState::Running => (3.0, 0.0),
        VmState::Shutdown => (4.0, 0.0),
        VmState::Epilog => (5.0, 0.0),
        VmState::Done => (6.0, 0.0),
        VmState::Hold => (0.0, -1.0),
        VmState::Migrate => (2.0, -1.0),
        VmState::Suspended => (3.0, -1.0),
        VmState::Stopped => (4.0, -1.0),
        VmState::PoweredOff => (3.0, 1.0),
        VmState::Unknown => (5.0, 1.0),
        VmState::Failed => (6.0, 1.0),
    }
}

#[component]
fn Drawing(turn: Turn, current: Memo<VmState>, seen: Memo<Vec<VmState>>) -> impl IntoView {
    let head = format!("arrow-{}", turn.slug());
    let end = format!("url(#{head})");
    let edges = EDGES
        .into_iter()
        // Two edges between the same states are one line with two heads.
        .filter(|(from, to)| !(EDGES.contains(&(*to, *from)) && from > to))
        .map(|(from, to)| {
            let both = EDGES.contains(&(to, from));
            let walked = move || {
                seen.with(|seen| {
                    seen.windows(2)
                        .any(|pair| *pair == [from, to] || both && *pair == [to, from])
                })
            };
            view! {
                <path
                    class="edge"
                    d=line(turn.at(from), turn.at(to))
                    data-walked=move || walked().then_some("true")
                    marker-end=end.clone()
                    marker-start=both.then(|| end.clone())
                ></path>
            }
        })
        .collect_view();
    let nodes = VmState::ALL
        .into_iter()
        .map(|state| view! { <Node state=state at=turn.at(state) current=current seen=seen/> })
        .collect_view();
    let (label_x, label_y) = turn.at(VmState::Unknown);
    view! {
        <svg
            class="lifecycle-svg"
            data-turn=turn.slug()
            viewBox=turn.view_box()
            role="img"
            aria-label=move || format!("Life-cycle; the machine is in state {}: {}", current.get(), current.get().meaning())
        >
            <defs>
                <marker id=head viewBox="0 0 8 8" refX="6.5" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse">
                    <path class="arrow" d="M1 1 7 4 1 7Z"></path>
                </marker>
            </defs>
            {edges}
            {nodes}
            <text class="aside" x=label_x - HALF.0 y=label_y - 24.0>"from anywhere"</text>
        </svg>
    }
    .into_any()
}

#[component]
fn Node(
    state: VmState,
    at: (f64, f64),
    current: Memo<VmState>,
    seen: Memo<Vec<VmState>>,
) -> impl IntoView {
    let (x, y) = at;
    view! {
        <g
            class="state"
            data-state=state.slug()
            data-tone=tone(state).slug()
            data-current=move || (current.get() == state).then_some("true")
            data-seen=move || seen.with(|seen| seen.contains(&state)).then_some("true")
        >
            <rect x=x - HALF.0 y=y - HALF.1 width=HALF.0 * 2.0 height=HALF.1 * 2.0 rx="16"></rect>
            <text x=x y=y + 4.5 text-anchor="middle">{state.name()}</text>
        </g>
    }
}

/// A straight line between the borders of two boxes.
fn line(from: (f64, f64), to: (f64, f64)) -> String {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let leave = |gap: f64| {
        let (w, h) = (HALF.0 + gap, HALF.1 + gap);
        let across = if dx == 0.0 {
            f64::INFINITY
        } else {
            w / dx.abs()
        };
        let down = if dy == 0.0 {
            f64::INFINITY
        } else {
            h / dy.abs()
        };
        across.min(down)
    };
    let (start, end) = (leave(4.0), 1.0 - leave(5.0));
    format!(
        "M{:.1} {:.1}L{:.1} {:.1}",
        from.0 + dx * start,
        from.1 + dy * start,
        from.0 + dx * end,
        from.1 + dy * end
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_states_share_a_place() {
        for turn in [Turn::Lying, Turn::Standing] {
            for a in VmState::ALL {
                for b in VmState::ALL {
                    let ((ax, ay), (bx, by)) = (turn.at(a), turn.at(b));
                    let apart = (ax - bx).abs() >= HALF.0 * 2.0 || (ay - by).abs() >= HALF.1 * 2.0;
                    assert!(a == b || apart, "{a} and {b}");
                }
            }
        }
    }

    #[test]
    fn a_line_runs_from_border_to_border() {
        assert_eq!(line((0.0, 0.0), (200.0, 0.0)), "M51.0 0.0L148.0 0.0");
    }
}
