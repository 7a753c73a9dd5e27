//! The questions before what cannot be undone or needs to know more.

use leptos::prelude::*;
use vimana_model::action::VmAction;
use vimana_model::vm::PowerOffVm;
use vimana_ui::{CheckField, Confirm, Dialog, memo, press};

use super::desk::{Question, VmDesk};
use super::migrate::MigrateForm;
use super::resize::ResizeForm;
use super::snapshot::SnapshotForm;
use crate::api::VmArgs;

#[component]
pub fn VmDialogs() -> impl IntoView {
    view! {
        <SureDialog/>
        <PowerOffDialog/>
        <ResizeDialog/>
        <SnapshotDialog/>
        <MigrateDialog/>
    }
}

/// The name of the VM that is being asked about.
fn name_of(desk: &VmDesk) -> String {
    desk.asked()
        .map(|asked| asked.vm.with_untracked(|vm| vm.name.to_string()))
        .unwrap_or_default()
}

#[component]
fn SureDialog() -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let (open, close) = desk.opened(Question::Sure);
    let action = {
        let desk = desk.clone();
        memo(move || desk.asked().map_or(VmAction::Delete, |asked| asked.action))
    };
    let yes = {
        let desk = desk.clone();
        Signal::derive(move || format!("{} {}", action.get().title(), name_of(&desk)))
    };
    let sure = Callback::new(move |()| desk.confirm(VmArgs::None));
    view! {
        <Confirm
            id="sure"
            open=open
            on_close=close
            title=Signal::derive(move || format!("{}?", yes.get()))
            text=Signal::derive(move || warning(action.get()).to_owned())
            yes=yes
            no="Keep it as it is"
            on_yes=sure
        />
    }
}

/// What is lost.
const fn warning(action: VmAction) -> &'static str {
    match action {
        VmAction::Delete => {
            "It stops at once, and its disk is deleted with all that is on it. Nobody can bring it back."
        }
        VmAction::Shutdown => {
            "The guest is asked to switch itself off; then its disk is deleted with all that is on it. \
             To keep the disk, power it off instead."
        }
        VmAction::Reset => {
            "It restarts at once, as by the reset button. What the guest has not written to its disk is lost."
        }
        VmAction::Hold
        | VmAction::Release
        | VmAction::Suspend
        | VmAction::Stop
        | VmAction::Resume
        | VmAction::PowerOff
        | VmAction::Start
        | VmAction::Reboot
        | VmAction::Resize
        | VmAction::Snapshot
        | VmAction::Revert
        | VmAction::RemoveSnapshot
        | VmAction::Backup
        | VmAction::Attach
        | VmAction::Detach
        | VmAction::Grow
        | VmAction::Move
        | VmAction::Migrate
        | VmAction::Retry
        | VmAction::Console => "",
    }
}

#[component]
fn PowerOffDialog() -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let (open, close) = desk.opened(Question::PowerOff);
    let title = {
        let desk = desk.clone();
        Signal::derive(move || format!("Power off {}?", name_of(&desk)))
    };
    view! {
        <Dialog id="power-off" open=open on_close=close title=title light=true>
            {
                let desk = desk.clone();
                let force = RwSignal::new(false);
                let yes = move || {
                    close.run(());
                    desk.confirm(VmArgs::PowerOff(PowerOffVm { force: force.get_untracked() }));
                };
                view! {
                    <p>"The guest is asked to switch itself off. Its disk stays, and it can be started again."</p>
                    <CheckField
                        id="force"
                        label="At once"
                        hint="As by pulling the plug: what the guest has not written to its disk is lost."
                        value=force
                    />
                    <div class="dialog-answers">
                        <button r#type="button" class="button" data-kind="plain" on:click=press(move || close.run(()))>
                            "Let it run"
                        </button>
                        <button r#type="button" class="button" data-kind="primary" on:click=press(yes)>
                            "Power off"
                        </button>
                    </div>
                }
            }
        </Dialog>
    }
}

#[component]
fn ResizeDialog() -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let (open, close) = desk.opened(Question::Resize);
    let title = {
        let desk = desk.clone();
        Signal::derive(move || format!("Resize {}", name_of(&desk)))
    };
    view! {
        <Dialog id="resize" open=open on_close=close title=title wide=true>
            {desk.asked().map(|asked| view! { <ResizeForm vm=asked.vm close=close/> })}
        </Dialog>
    }
}

#[component]
fn MigrateDialog() -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let (open, close) = desk.opened(Question::Migrate);
    let title = {
        let desk = desk.clone();
        Signal::derive(move || format!("Migrate {}", name_of(&desk)))
    };
    view! {
        <Dialog id="migrate" open=open on_close=close title=title wide=true>
            {desk.asked().map(|asked| view! { <MigrateForm vm=asked.vm wanted=asked.host close=close/> })}
        </Dialog>
    }
}

#[component]
fn SnapshotDialog() -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let (open, close) = desk.opened(Question::Snapshot);
    let title = {
        let desk = desk.clone();
        Signal::derive(move || format!("Snapshot of {}", name_of(&desk)))
    };
    view! {
        <Dialog id="snapshot" open=open on_close=close title=title wide=true>
            {desk.asked().map(|asked| view! { <SnapshotForm vm=asked.vm close=close/> })}
        </Dialog>
    }
}
