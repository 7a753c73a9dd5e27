//! The form that takes a snapshot.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::VmState;
use vimana_model::action::VmAction;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::vm::VmView;
use vimana_model::volume::VolumeView;
use vimana_ui::{Answers, CheckField, Choice, SelectField, TextField, part};

use super::desk::VmDesk;
use crate::api::{ApiError, VmArgs, volumes as all_volumes};
use crate::page::refused::{of_field, otherwise};

#[component]
pub fn SnapshotForm(vm: ArcRwSignal<VmView>, close: Callback<()>) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let running = vm.with_untracked(|vm| vm.state == VmState::Running);
    let name = RwSignal::new(String::new());
    let memory = RwSignal::new(running);
    let only = RwSignal::new(String::new());
    let volumes = RwSignal::new(Vec::<String>::new());
    let id = vm.with_untracked(|vm| vm.id);
    spawn_local(async move {
        // Where they cannot be read, all of its disks are on offer.
        if let Ok(found) = all_volumes().await {
            let its = |volume: &VolumeView| volume.vm.as_ref().is_some_and(|vm| vm.id == id);
            let names = found.into_iter().filter(its);
            let names = names.map(|volume| volume.name.to_string());
            volumes.try_set(names.collect());
        }
    });
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        let form = TakeSnapshot {
            name: name.get_untracked().trim().to_owned(),
            memory: memory.get_untracked() && only.with_untracked(String::is_empty),
            volume: Some(only.get_untracked()).filter(|name| !name.is_empty()),
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
            {part(move || volumes.with(|names| (!names.is_empty()).then(|| view! {
                <SelectField
                    id="snapshot-of"
                    label="Of"
                    choices=choices(names)
                    value=only
                    error=of_field(refused, "volume")
                />
            })))}
            {part(move || (running && only.with(String::is_empty)).then(|| view! {
                <CheckField
                    id="snapshot-memory"
                    label="With the memory"
                    hint="It can go back while it runs, to this very moment. It stands still while the memory is saved."
                    value=memory
                />
            }))}
            <Answers error=otherwise(refused, &["name", "volume"]) on_cancel=close label="Take it".to_owned() busy=busy/>
        </form>
    }
    .into_any()
}

fn choices(volumes: &[String]) -> Vec<Choice> {
    let all = Choice {
        value: String::new(),
        text: "All of its disks".to_owned(),
    };
    let one = |name: &String| Choice {
        value: name.clone(),
        text: format!("Volume {name} alone"),
    };
    std::iter::once(all)
        .chain(volumes.iter().map(one))
        .collect()
}
