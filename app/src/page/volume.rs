//! What the pages say of a volume.

use leptos::prelude::*;
use vimana_model::unit::MiB;
use vimana_model::volume::{VolumeAction, VolumeState, VolumeView};
use vimana_ui::{TextField, Tone};

use super::refused::of_field;
use super::sentence;
use crate::api::ApiError;
use crate::session::Caller;

/// How it is, as a badge says it.
pub const fn condition(state: VolumeState) -> (Tone, &'static str) {
    match state {
        VolumeState::Attached => (Tone::Good, "attached"),
        VolumeState::Attaching => (Tone::Moving, "being attached"),
        VolumeState::Detaching => (Tone::Moving, "being detached"),
        VolumeState::Ready => (Tone::Resting, "free"),
        VolumeState::Removing | VolumeState::Removed => (Tone::Over, "deleted"),
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
