use leptos::prelude::*;
use vimana_model::event::{EventKind, EventView};
use vimana_model::request::RequestState;
use vimana_ui::{Each, Item, Prose, Time, Tone};

use crate::live;
use crate::page::{image_tone, request_tone, tone};

/// What happened, who did it, when; newest first, since that is what one came
/// to see.
#[component]
pub fn Timeline(events: live::Timeline) -> impl IntoView {
    let entries = Signal::derive(move || {
        let entry =
            |event: EventView| Item::new(event.seq, move || view! { <Entry event=event.clone()/> });
        events.get().into_iter().rev().map(entry).collect()
    });
    view! {
        <section class="panel" aria-labelledby="timeline-title">
            <h2 id="timeline-title">"Timeline"</h2>
            <ol class="timeline" reversed>
                <Each items=entries/>
            </ol>
        </section>
    }
    .into_any()
}

#[component]
fn Entry(event: EventView) -> impl IntoView {
    view! {
        <li data-tone=tone_of(&event.event).map(Tone::slug)>
            <p><Prose text=event.event.sentence()/></p>
            <p class="faint">
                <span class="actor">{event.actor.to_string()}</span>
                " · "
                <Time at_ms=event.at.as_ms()/>
            </p>
        </li>
    }
    .into_any()
}

/// What stands out: turns of state, and what went wrong.
fn tone_of(event: &EventKind) -> Option<Tone> {
    match event {
        EventKind::State { to, .. } => Some(tone(*to)),
        EventKind::RequestMoved { to } => Some(request_tone(*to)),
        EventKind::Request { action: None } => Some(request_tone(RequestState::Request)),
        EventKind::Image { to, .. } => Some(image_tone(*to)),
        EventKind::Failed { .. }
        | EventKind::Undoing { .. }
        | EventKind::OperationFailed { .. }
        | EventKind::HostSilent
        | EventKind::HostRefused { .. }
        | EventKind::HostDoubted { .. }
        | EventKind::HostRevoked
        | EventKind::HostFenced { .. }
        | EventKind::HostStuck { .. }
        | EventKind::OrphanFound { .. } => Some(Tone::Bad),
        EventKind::StepRetried { .. }
        | EventKind::Cancelling { .. }
        | EventKind::HostDraining { .. } => Some(Tone::Moving),
        EventKind::HostCordoned | EventKind::HostDrained => Some(Tone::Resting),
        EventKind::Cancelled { .. } => Some(Tone::Over),
        EventKind::SnapshotTaken { .. }
        | EventKind::BackedUp { .. }
        | EventKind::Migrated { .. }
        | EventKind::HostEnabled
        | EventKind::VolumeAttached { .. } => Some(Tone::Good),
        EventKind::Reverted { .. } => Some(Tone::Moving),
        EventKind::VolumeDeleted { .. } => Some(Tone::Over),
        EventKind::SnapshotRemoved { .. }
        | EventKind::BackupDeleted { .. }
        | EventKind::VolumeCreated { .. }
        | EventKind::VolumeDetached { .. }
        | EventKind::VolumeGrown { .. }
        | EventKind::VolumeMoved { .. }
        | EventKind::DiskMoved { .. }
        | EventKind::VolumeCame { .. }
        | EventKind::VolumeRemoved { .. }
        | EventKind::Resized { .. }
        | EventKind::Request { action: Some(_) }
        | EventKind::Requested { .. }
        | EventKind::Placed { .. }
        | EventKind::Expected { .. }
        | EventKind::Cleared {}
        | EventKind::NotPlaced { .. }
        | EventKind::Step { .. }
        | EventKind::Note { .. }
        | EventKind::ConsoleOpened
        | EventKind::HostConnected
        | EventKind::HostDisconnected
        | EventKind::HostCertified
        | EventKind::OrphanGone { .. }
        | EventKind::OrphanDiscarded { .. }
        | EventKind::ImageRefreshed { .. }
        | EventKind::ImageRefreshSet { .. } => None,
    }
}
