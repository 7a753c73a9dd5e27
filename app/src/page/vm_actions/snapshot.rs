//! The form that takes a snapshot.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::VmState;
use vimana_model::action::VmAction;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::vm::VmView;
use vimana_ui::{Answers, CheckField, TextField};

use super::desk::VmDesk;
use crate::api::{ApiError, VmArgs};
use crate::page::refused::{of_field, otherwise};

#[component]
pub fn SnapshotForm(vm: ArcRwSignal<VmView>, close: Callback<()>) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let running = vm.with_untracked(|vm| vm.state == VmState::Running);
    let name = RwSignal::new(String::new());
    let memory = RwSignal::new(running);
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        let form = TakeSnapshot {
            name: name.get_untracked().trim().to_owned(),
            memory: memory.get_untracked(),
        };
        if let Err(error) = form.check() {
            refused.set(Some(error.into()));
            return;
        }
        busy.set(true);
        let (desk, vm) = (desk.clone(), vm.clone());
        spawn_local(async move {
            let args = VmArgs::TakeSnapshot(form);
            match desk.act(VmAction::Snapshot, vm, args).await {
                Ok(()) => close.run(()),
                Err(error) => {
                    busy.try_set(false);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <TextField
                id="snapshot-name"
                label="Name"
                hint="What it is like now, such as `before-the-upgrade`."
                placeholder="before-the-upgrade"
                autofocus=true
                value=name
                error=of_field(refused, "name")
            />
            {running.then(|| view! {
                <CheckField
                    id="snapshot-memory"
                    label="With the memory"
                    hint="It can go back while it runs, to this very moment. It stands still while the memory is saved."
                    value=memory
                />
            }.into_any())}
            <Answers error=otherwise(refused, &["name"]) on_cancel=close label="Take it".to_owned() busy=busy/>
        </form>
    }
    .into_any()
}
