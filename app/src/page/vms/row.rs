use leptos::prelude::*;
use vimana_model::action::VmAction;
use vimana_model::vm::VmView;
use vimana_ui::{Badge, Cell, Prose, Time, flag, memo, part, text};

use super::dock::Drag;
use crate::page::vm_actions::{VmActions, blocked};
use crate::page::{sentence, tone};

/// One VM. Made once; an event patches the cells it changes.
#[component]
pub fn VmRow(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let (id, name, flavor, image, created) = vm.with_untracked(|vm| {
        (
            vm.id,
            vm.name.to_string(),
            vm.flavor.to_string(),
            vm.image.to_string(),
            vm.created_at.as_ms(),
        )
    });
    let state = {
        let vm = vm.clone();
        memo(move || vm.with(|vm| vm.state))
    };
    let why = {
        let vm = vm.clone();
        memo(move || vm.with(reason))
    };
    let host = {
        let vm = vm.clone();
        memo(move || vm.with(|vm| vm.host.as_ref().map(|host| host.name.clone())))
    };
    let row_name = name.clone();
    let drag = expect_context::<Drag>();
    let stays = blocked(&vm, VmAction::Migrate);
    let dragged = vm.clone();
    let begin = move |_| {
        if stays.with_untracked(Option::is_none) {
            drag.begin(&dragged);
        }
    };
    view! {
        <tr role="row" data-over=flag(move || state.get().is_final()) data-vm=row_name>
            <Cell title="Name">
                <a href=format!("/vms/{id}") class="name" on:dragstart=begin on:dragend=move |_| drag.end()>{name}</a>
            </Cell>
            <Cell title="State">
                <Badge tone=Signal::derive(move || tone(state.get())) text=Signal::derive(move || state.get().name().to_owned())/>
                {part(move || why.get().map(|why| view! { <span class="why"><Prose text=why/></span> }.into_any()))}
            </Cell>
            <Cell title="Flavor">{flavor}</Cell>
            <Cell title="Image">{image}</Cell>
            <Cell title="Host">{text(move || host.get().unwrap_or_else(|| "–".to_owned()))}</Cell>
            <Cell title="Created"><Time at_ms=created/></Cell>
            <Cell title="Actions"><VmActions vm=vm compact=true/></Cell>
        </tr>
    }
    .into_any()
}

/// Why it waits, or why it failed.
fn reason(vm: &VmView) -> Option<String> {
    vm.failure
        .as_ref()
        .map(|failure| failure.reason.as_str())
        .or_else(|| vm.pending.as_ref().map(|pending| pending.message.as_str()))
        .map(sentence)
}
