//! `/vms/:id`: all about one VM, as it happens.

mod console;
mod facts;
mod lifecycle;
mod panels;
mod snapshots;
mod volumes;
mod way;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::snapshot::SnapshotView;
use vimana_model::vm::VmView;
use vimana_model::volume::VolumeView;
use vimana_ui::{Badge, Time, memo, text};

use super::lazy::lazy_page;
use super::load::{Asked, Found, FoundVm, Loaded, Wanted, id_in_address};
use super::operations::{Operations, migration};
use super::timeline::Timeline;
use super::tone;
use super::vm_actions::VmActions;
use crate::live::{About, History, Live, Mark};
use console::ConsolePanel;
use facts::Facts;
use lifecycle::LifecyclePicture;
use panels::{FailurePanel, PendingPanel};
use snapshots::Snapshots;
use volumes::Volumes;

lazy_page!(
    /// One VM.
    VmPage in vm = page, wants {
        let id = id_in_address();
        move || Wanted::Vm(id.get())
    }
);

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    view! {
        <Loaded
            asked=asked
            show=Arc::new(move |_, asked, found| {
                let (vm, history, disks) = take_in(&live, asked, found)?;
                Some(view! { <Machine vm=vm history=history disks=disks/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                take_in(&again, asked, found);
            })
        />
    }
    .into_any()
}

/// Snapshots and volumes.
type Disks = (Vec<SnapshotView>, Vec<VolumeView>);

fn take_in(
    live: &Live,
    asked: Mark,
    found: Found,
) -> Option<(ArcRwSignal<VmView>, History, Disks)> {
    let Found::Vm(found) = found else {
        return None;
    };
    let FoundVm {
        vm,
        events,
        operations,
        snapshots,
        volumes,
    } = *found;
    let id = vm.id;
    let vm = live.adopt(asked, vm);
    let newest = vm.with_untracked(|vm| vm.operation.clone());
    let history = live.open_history(About::Vm(id), events, operations, newest);
    Some((vm, history, (snapshots, volumes)))
}

#[component]
fn Machine(vm: ArcRwSignal<VmView>, history: History, disks: Disks) -> impl IntoView {
    let (snapshots, volumes) = disks;
    let (name, tenant) = vm.with_untracked(|vm| (vm.name.to_string(), vm.tenant_id));
    view! {
        <Title text=name/>
        <Head vm=vm.clone()/>
        <div class="vm">
            <LifecyclePicture vm=vm.clone() events=history.events.clone()/>
            <div class="vm-main">
                <PendingPanel vm=vm.clone()/>
                <FailurePanel vm=vm.clone()/>
                <Operations operations=history.operations tenant=Some(tenant) line=migration::line/>
                <ConsolePanel vm=vm.clone()/>
                <Snapshots vm=vm.clone() first=snapshots events=history.events.clone()/>
                <Volumes vm=vm.clone() first=volumes events=history.events.clone()/>
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
        memo(move || vm.with(|vm| vm.state))
    };
    let since = {
        let vm = vm.clone();
        Signal::derive(move || vm.with(|vm| vm.state_since.as_ms()))
    };
    view! {
        <div class="page-head">
            <div>
                <p class="crumb"><a href="/vms">"My VMs"</a></p>
                <h1>{name}</h1>
                <p class="state-line" role="status">
                    <Badge tone=Signal::derive(move || tone(state.get())) text=Signal::derive(move || state.get().name().to_owned())/>
                    <span>{text(move || state.get().meaning())}</span>
                    <span class="faint"><Time at_ms=since/></span>
                </p>
            </div>
            <VmActions vm=vm/>
        </div>
    }
}
