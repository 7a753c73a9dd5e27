//! What the pages say of a volume.

use leptos::prelude::*;
use vimana_model::unit::MiB;
use vimana_model::volume::{VolumeAction, VolumeContent, VolumeState, VolumeView};
use vimana_ui::{TextField, Tone};

use super::refused::of_field;
use super::sentence;
use crate::api::ApiError;
use crate::session::Caller;

/// How it is, as a badge says it.
pub const fn condition(volume: &VolumeView) -> (Tone, &'static str) {
    match &volume.content {
        VolumeContent::Missing { .. } => return (Tone::Bad, "without content"),
        VolumeContent::Coming => return (Tone::Moving, "being filled"),
        VolumeContent::AtHand => {}
    }
    match volume.state {
        VolumeState::Attached => (Tone::Good, "attached"),
        VolumeState::Attaching => (Tone::Moving, "being attached"),
        VolumeState::Detaching => (Tone::Moving, "being detached"),
        VolumeState::Ready => (Tone::Resting, "free"),
        VolumeState::Removing | VolumeState::Removed => (Tone::Over, "deleted"),
    }
}

/// Why what it is to begin with is not there; nothing otherwise.
pub fn missing(volume: &VolumeView) -> String {
    match &volume.content {
        VolumeContent::Missing { reason } => sentence(&format!("its content {reason}")),
        VolumeContent::AtHand | VolumeContent::Coming => String::new(),
    }
}

/// Why `action` is not possible now; `None` where it is.
pub fn refusal(caller: &Caller, action: VolumeAction, volume: &VolumeView) -> Option<String> {
    let may = match action {
        VolumeAction::Copy => caller.may_import(false),
        VolumeAction::Attach
        | VolumeAction::Detach
        | VolumeAction::Grow
        | VolumeAction::Move
        | VolumeAction::Change
        | VolumeAction::Delete => caller.may_manage_volumes(),
    };
    if !may {
        return Some("Your role does not allow this.".to_owned());
    }
    if let Err(refusal) = action.judge(volume.state) {
        return Some(sentence(&format!("it {refusal}")));
    }
    match (action, &volume.content) {
        (VolumeAction::Attach, VolumeContent::Coming) => {
            return Some("Its content is still on its way.".to_owned());
        }
        (VolumeAction::Attach, VolumeContent::Missing { .. }) => return Some(missing(volume)),
        (_, _) => {}
    }
    if action == VolumeAction::Move && volume.host.is_some() && volume.vm.is_none() {
        return Some("It moves while a VM has it: attach it first.".to_owned());
    }
    let nothing = action == VolumeAction::Copy && volume.host.is_none();
    nothing.then(|| "It was never attached: there is nothing on it yet.".to_owned())
}

/// In which of its host's datastores it is, where that is not the host's own
/// directory.
pub fn datastore(volume: &VolumeView) -> String {
    let is = &volume.datastore;
    match &volume.moving_to {
        Some(to) => format!("in {is}, on its way to {to}"),
        None if is.is_local() => String::new(),
        None => format!("in {is}"),
    }
}

/// An amount as it was typed; one that is none is out of bounds.
pub fn size(text: &str) -> MiB {
    MiB(text.trim().parse().unwrap_or(0))
}

/// The size that a volume is to have, in MiB as it is typed.
#[component]
pub fn LargerSize(
    volume: VolumeView,
    value: RwSignal<String>,
    refused: RwSignal<Option<ApiError>>,
) -> impl IntoView {
    view! {
        <TextField
            id="grow-size"
            label="Size in MiB"
            hint=format!("It has {} and never shrinks. The guest sees it at once where it runs.", volume.size_mib)
            numeric=true
            autofocus=true
            value=value
            error=of_field(refused, "size_mib")
        />
    }
}
