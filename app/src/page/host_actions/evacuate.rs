//! The form that has the VMs of a host moved away.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::evacuation::{EvacuateHost, MAX_LIMIT};
use vimana_model::host::{DesiredState, HostView};
use vimana_ui::{Answers, Dialog, TextField, memo, text};

use super::desk::HostDesk;
use crate::api::ApiError;
use crate::page::refused::{of_field, otherwise};

#[component]
pub fn EvacuateDialog() -> impl IntoView {
    let desk = expect_context::<HostDesk>();
    let (open, close) = desk.opened();
    let title = {
        let desk = desk.clone();
        Signal::derive(move || {
            let host = desk.asked();
            let name = host.map(|host| host.with_untracked(|host| host.name.to_string()));
            format!("Evacuate {}", name.unwrap_or_default())
        })
    };
    view! {
        <Dialog id="evacuate" open=open on_close=close title=title wide=true>
            {desk.asked().map(|host| view! { <EvacuateForm host=host close=close/> })}
        </Dialog>
    }
}

#[component]
fn EvacuateForm(host: ArcRwSignal<HostView>, close: Callback<()>) -> impl IntoView {
    let desk = expect_context::<HostDesk>();
    let name = host.with_untracked(|host| host.name.to_string());
    let vms = {
        let host = host.clone();
        memo(move || host.with(|host| host.vms))
    };
    // Only how many go at once can be another one.
    let drains = host.with_untracked(|host| host.desired == DesiredState::Draining);
    let limit = RwSignal::new(desk.limit().to_string());
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        // What is no number is as wrong as none at all.
        let limit = limit.with_untracked(|limit| limit.trim().parse().unwrap_or(0));
        let form = EvacuateHost { limit: Some(limit) };
        if let Err(error) = form.check() {
            refused.set(Some(error.into()));
            return;
        }
        busy.set(true);
        let (desk, host) = (desk.clone(), host.clone());
        spawn_local(async move {
            match desk.evacuate(&host, form).await {
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
            {(!drains).then(|| view! {
                <p>{text(move || meaning(vms.get()))}</p>
                <p>"Meanwhile it takes no new VMs. When nothing is left on it, it is in maintenance, until somebody enables it."</p>
            })}
            {drains.then(|| view! {
                <p>"VMs on their way go on. A smaller number holds once enough of them have arrived."</p>
            })}
            <TextField
                id="evacuate-limit"
                label="VMs on their way at once"
                hint=format!("From 1 to {MAX_LIMIT}: the more, the sooner it is empty, and the busier are the hosts.")
                numeric=true
                value=limit
                error=of_field(refused, "limit")
            />
            <Answers
                error=otherwise(refused, &["limit"])
                on_cancel=close
                label=Signal::derive(move || if drains { "Change".to_owned() } else { format!("Evacuate {name}") })
                busy=busy
            />
        </form>
    }
    .into_any()
}

/// What happens to its VMs.
fn meaning(vms: u32) -> String {
    match vms {
        0 => "No VM is on it: nothing has to be moved.".to_owned(),
        1 => "The 1 VM on it is moved to the host that suits it best, and runs on if it runs now."
            .to_owned(),
        vms => format!(
            "The {vms} VMs on it are moved to other hosts, each to the one that suits it best. \
             Those that run now run on."
        ),
    }
}
