//! The form that brings a VM to another host.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::action::VmAction;
use vimana_model::migration::{MigrateVm, MigrationTarget};
use vimana_model::state::VmState;
use vimana_model::vm::VmView;
use vimana_ui::{Answers, Choice, SelectField, part};

use super::desk::VmDesk;
use crate::api::{ApiError, VmArgs, migration_targets};
use crate::page::refused::{of_field, otherwise};
use crate::page::sentence;

#[component]
pub fn MigrateForm(vm: ArcRwSignal<VmView>, close: Callback<()>) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let id = vm.with_untracked(|vm| vm.id);
    let host = RwSignal::new(String::new());
    let targets = RwSignal::new(None::<Vec<MigrationTarget>>);
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    spawn_local(async move {
        match migration_targets(id).await {
            Ok(found) => {
                // The best is the first.
                let best = found.iter().find(|target| target.refusal.is_none());
                let best = best.map(|target| target.host.name.clone());
                host.try_set(best.unwrap_or_default());
                targets.try_set(Some(found));
            }
            Err(error) => {
                refused.try_set(Some(error));
            }
        }
    });
    let meaning = if vm.with_untracked(|vm| vm.state == VmState::Running) {
        "It runs on while its disk and memory are copied, and stands still for a moment at the end. \
         Until then it can be cancelled, and stays where it is."
    } else {
        "It is copied by way of the datastore, and stays as it is: it does not run, before or after. \
         Until it has arrived it can be cancelled, and stays where it is."
    };
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        let form = MigrateVm {
            host: Some(host.get_untracked()),
            ..MigrateVm::default()
        };
        if let Err(error) = form.check() {
            refused.set(Some(error.into()));
            return;
        }
        busy.set(true);
        let (desk, vm) = (desk.clone(), vm.clone());
        spawn_local(async move {
            match desk.act(VmAction::Migrate, vm, VmArgs::Migrate(form)).await {
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
            <p>{meaning}</p>
            {part(move || targets.with(|found| found.as_ref().map(|found| shown(found, host, refused))))}
            <Answers error=otherwise(refused, &["host"]) on_cancel=close label="Migrate".to_owned() busy=busy/>
        </form>
    }
    .into_any()
}

/// Those that it can go to, to choose from; and why not to the others.
fn shown(
    found: &[MigrationTarget],
    host: RwSignal<String>,
    refused: RwSignal<Option<ApiError>>,
) -> AnyView {
    let choices: Vec<Choice> = found
        .iter()
        .filter(|target| target.refusal.is_none())
        .map(|target| Choice {
            value: target.host.name.clone(),
            text: format!(
                "{}: {:.0} % of it stay free",
                target.host.name,
                target.score * 100.0
            ),
        })
        .collect();
    let others: Vec<_> = found
        .iter()
        .filter_map(|target| {
            let why = sentence(target.refusal.as_ref()?);
            Some(view! { <li>{why}</li> }.into_any())
        })
        .collect();
    let nowhere = choices.is_empty();
    view! {
        {(!nowhere).then(|| view! {
            <SelectField
                id="migrate-to"
                label="Host"
                choices=choices
                value=host
                error=of_field(refused, "host")
            />
        }.into_any())}
        {nowhere.then(|| view! { <p>"No host can take it now."</p> }.into_any())}
        {(!others.is_empty()).then(|| view! { <ul class="why">{others}</ul> }.into_any())}
    }
    .into_any()
}
