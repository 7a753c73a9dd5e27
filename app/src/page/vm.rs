//! `/vms/:id`: all about one VM, as it happens.

mod console;
mod facts;
mod lifecycle;
mod operations;
mod panels;
mod way;

use futures::join;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::components::A;
use leptos_router::hooks::use_params_map;
use vimana_model::vm::VmView;
use vimana_model::{Error, VmId};
use vimana_ui::{Badge, Time};

use super::problem::ProblemView;
use super::timeline::Timeline;
use super::tone;
use super::vm_actions::VmActions;
use crate::api::{ApiError, ApiResult, vm, vm_operations, vm_timeline};
use crate::live::{History, Live, Mark};
use crate::session::CurrentSession;
use console::ConsolePanel;
use facts::Facts;
use lifecycle::LifecyclePicture;
use operations::Operations;
use panels::{FailurePanel, PendingPanel};

#[component]
pub fn VmPage() -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let params = use_params_map();
    let id = Memo::new(move |_| {
        params.with(|params| params.get_str("id").unwrap_or_default().to_owned())
    });
    let asking = live.clone();
    let all = Resource::new_blocking(move || id.get(), move |id| asking.ask(load(id)));
    let reload = live.clone();
    live.on_reset(move || {
        let live = reload.clone();
        let Some(id) = id.try_get_untracked() else {
            return;
        };
        spawn_local(async move {
            if let Ok(found) = live.ask(load(id)).await {
                take_in(&live, found);
            }
        });
    });
    view! {
        <Transition fallback=|| view! { <p class="loading">"Loading…"</p> }>
            {move || {
                let live = live.clone();
                Suspend::new(async move {
                    match session.and(all).await {
                        Ok((caller, found)) => {
                            provide_context(caller);
                            let (vm, history) = take_in(&live, found);
                            view! { <Machine vm=vm history=history/> }.into_any()
                        }
                        Err(error) => view! { <ProblemView error=error/> }.into_any(),
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}

type Found = (
    VmView,
    Vec<vimana_model::event::EventView>,
    Vec<vimana_model::operation::OperationView>,
);

/// Reads everything about the VM. What is no id names no VM.
async fn load(id: String) -> ApiResult<Found> {
    let Ok(id) = id.parse::<VmId>() else {
        #[cfg(feature = "ssr")]
        crate::ssr::set_status(404);
        return Err(ApiError::from(Error::not_found("VM")));
    };
    let (vm, events, operations) = join!(vm(id), vm_timeline(id), vm_operations(id));
    Ok((vm?, events?, operations?))
}

fn take_in(live: &Live, (asked, found): (Mark, Found)) -> (ArcRwSignal<VmView>, History) {
    let (vm, events, operations) = found;
    let id = vm.id;
    let vm = live.adopt(asked, vm);
    (vm, live.open_history(id, events, operations))
}

#[component]
fn Machine(vm: ArcRwSignal<VmView>, history: History) -> impl IntoView {
    let (name, tenant) = vm.with_untracked(|vm| (vm.name.to_string(), vm.tenant_id));
    view! {
        <Title text=name/>
        <Head vm=vm.clone()/>
        <div class="vm">
            <LifecyclePicture vm=vm.clone() events=history.events.clone()/>
            <div class="vm-main">
                <PendingPanel vm=vm.clone()/>
                <FailurePanel vm=vm.clone()/>
                <Operations operations=history.operations tenant=tenant/>
                <ConsolePanel vm=vm.clone()/>
            </div>
            <div class="vm-side">
                <Facts vm=vm/>
                <Timeline events=history.events/>
            </div>
        </div>
    }
    .into_any()
}

#[component]
fn Head(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let name = vm.with_untracked(|vm| vm.name.to_string());
    let state = {
        let vm = vm.clone();
        Memo::new(move |_| vm.with(|vm| vm.state))
    };
    let since = {
        let vm = vm.clone();
        Signal::derive(move || vm.with(|vm| vm.state_since.as_ms()))
    };
    view! {
        <div class="page-head">
            <div>
                <p class="crumb"><A href="/vms">"My VMs"</A></p>
                <h1>{name}</h1>
                <p class="state-line" role="status">
                    <Badge tone=Signal::derive(move || tone(state.get())) text=Signal::derive(move || state.get().name().to_owned())/>
                    <span>{move || state.get().meaning()}</span>
                    <span class="faint"><Time at_ms=since/></span>
                </p>
            </div>
            <VmActions vm=vm/>
        </div>
    }
}
