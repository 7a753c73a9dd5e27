use leptos::prelude::*;
use vimana_model::event::{EventKind, EventView};
use vimana_ui::{Prose, Time};

use crate::page::tone;

/// What happened, who did it, when; newest first, since that is what one came
/// to see.
#[component]
pub fn Timeline(events: ArcRwSignal<Vec<EventView>>) -> impl IntoView {
    view! {
        <section class="panel" aria-labelledby="timeline-title">
            <h2 id="timeline-title">"Timeline"</h2>
            <ol class="timeline" reversed>
                <For
                    each=move || events.get().into_iter().rev()
                    key=|event| event.seq
                    children=|event| view! { <Entry event=event/> }
                />
            </ol>
        </section>
    }
}

#[component]
fn Entry(event: EventView) -> impl IntoView {
    let tone = match &event.event {
        EventKind::State { to, .. } => Some(tone(*to).slug()),
        EventKind::Failed { .. } => Some("bad"),
        EventKind::Requested { .. }
        | EventKind::Placed { .. }
        | EventKind::NotPlaced { .. }
        | EventKind::Step { .. }
        | EventKind::Note { .. }
        | EventKind::ConsoleOpened
        | EventKind::HostConnected
        | EventKind::HostDisconnected
        | EventKind::HostSilent => None,
    };
    view! {
        <li data-tone=tone>
            <p><Prose text=event.event.sentence()/></p>
            <p class="faint">
                <span class="actor">{event.actor.to_string()}</span>
                " · "
                <Time at_ms=event.at.as_ms()/>
            </p>
        </li>
    }
}
