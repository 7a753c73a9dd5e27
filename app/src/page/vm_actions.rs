//! What can be done with one VM, in its row and on its page: the two or three
//! things that make sense now as buttons, and all of them in a menu, each with
//! what it does or why not now.

mod desk;
mod dialogs;
mod migrate;
mod resize;
mod snapshot;

use leptos::prelude::*;
use leptos_router::hooks::use_navigate;
use vimana_model::VmState;
use vimana_model::action::VmAction;
use vimana_model::vm::VmView;
use vimana_ui::{Button, ButtonKind, Each, IconName, Item, Menu, MenuItem, memo};

use super::sentence;
use crate::session::Caller;
pub use desk::VmDesk;
pub use dialogs::VmDialogs;

/// Everything, in the order of the menu, which has two columns where there is
/// room: what belongs together stands side by side; what cannot be undone, last.
const MENU: [VmAction; 17] = [
    VmAction::Console,
    VmAction::Resize,
    VmAction::Snapshot,
    VmAction::Backup,
    VmAction::Suspend,
    VmAction::Stop,
    VmAction::Resume,
    VmAction::Retry,
    VmAction::PowerOff,
    VmAction::Start,
    VmAction::Reboot,
    VmAction::Reset,
    VmAction::Migrate,
    VmAction::Hold,
    VmAction::Release,
    VmAction::Shutdown,
    VmAction::Delete,
];

/// What one most likely wants now; the way on first.
const fn likely(state: VmState) -> &'static [VmAction] {
    match state {
        VmState::Pending => &[VmAction::Hold, VmAction::Delete],
        VmState::Hold => &[VmAction::Release, VmAction::Delete],
        VmState::Running => &[VmAction::Console, VmAction::Suspend, VmAction::PowerOff],
        VmState::Suspended => &[VmAction::Resume, VmAction::Stop],
        VmState::Stopped => &[VmAction::Resume, VmAction::Delete],
        VmState::PoweredOff => &[VmAction::Start, VmAction::Resize],
        VmState::Failed => &[VmAction::Retry, VmAction::Delete],
        VmState::Boot | VmState::Shutdown => &[VmAction::Console],
        VmState::Unknown => &[VmAction::Delete],
        VmState::Prolog | VmState::Migrate | VmState::Epilog | VmState::Done => &[],
    }
}

/// Whether it leads on from where nothing happens by itself.
const fn leads_on(action: VmAction) -> bool {
    match action {
        VmAction::Release | VmAction::Resume | VmAction::Start | VmAction::Retry => true,
        VmAction::Hold
        | VmAction::Suspend
        | VmAction::Stop
        | VmAction::PowerOff
        | VmAction::Reboot
        | VmAction::Reset
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
        | VmAction::Shutdown
        | VmAction::Delete
        | VmAction::Console => false,
    }
}

const fn icon(action: VmAction) -> IconName {
    match action {
        VmAction::Hold => IconName::Hold,
        VmAction::Release | VmAction::Resume => IconName::Release,
        VmAction::Suspend => IconName::Suspend,
        VmAction::Stop => IconName::Stop,
        VmAction::Backup => IconName::Archive,
        VmAction::PowerOff | VmAction::Start => IconName::Power,
        VmAction::Reboot => IconName::Reboot,
        VmAction::Reset => IconName::Reset,
        VmAction::Resize | VmAction::Grow => IconName::Resize,
        VmAction::Move | VmAction::Migrate => IconName::Move,
        VmAction::Snapshot => IconName::Camera,
        VmAction::Revert => IconName::Undo,
        VmAction::Attach => IconName::Plus,
        VmAction::Detach => IconName::Cross,
        VmAction::Retry => IconName::Retry,
        VmAction::Shutdown => IconName::SignOut,
        VmAction::Delete | VmAction::RemoveSnapshot => IconName::Trash,
        VmAction::Console => IconName::Console,
    }
}

#[component]
pub fn VmActions(
    vm: ArcRwSignal<VmView>,
    /// Icons alone, and no more than two.
    #[prop(optional)]
    compact: bool,
) -> impl IntoView {
    let most = if compact { 2 } else { 3 };
    let shown = {
        let vm = vm.clone();
        memo(move || vm.with(|vm| likely(vm.state)))
    };
    let buttons = {
        let vm = vm.clone();
        Signal::derive(move || {
            let button = |action: &VmAction| {
                let (vm, action) = (vm.clone(), *action);
                Item::new(
                    action,
                    move || view! { <ActionButton vm=vm.clone() action=action compact=compact/> },
                )
            };
            shown.get().iter().take(most).map(button).collect()
        })
    };
    view! {
        <div class="actions" role="group" aria-label="Actions">
            <Each items=buttons/>
            <ActionMenu vm=vm compact=compact/>
        </div>
    }
    .into_any()
}

/// Why the action is not possible now.
pub fn blocked(vm: &ArcRwSignal<VmView>, action: VmAction) -> Memo<Option<String>> {
    let caller = expect_context::<Caller>();
    let vm = vm.clone();
    memo(move || vm.with(|vm| caller.refusal(action, vm)))
}

/// What pressing it does: the console is on the VM's page, everything else is
/// the desk's.
fn pressed(vm: ArcRwSignal<VmView>, action: VmAction, busy: RwSignal<bool>) -> Callback<()> {
    let desk = expect_context::<VmDesk>();
    let navigate = use_navigate();
    let id = vm.with_untracked(|vm| vm.id);
    Callback::new(move |()| {
        if action == VmAction::Console {
            let url = format!("/vms/{id}?console=open#console");
            navigate(&url, Default::default());
        } else {
            desk.press(action, &vm, busy);
        }
    })
}

#[component]
fn ActionButton(vm: ArcRwSignal<VmView>, action: VmAction, compact: bool) -> impl IntoView {
    let busy = RwSignal::new(false);
    let (id, name) = vm.with_untracked(|vm| (vm.id, vm.name.to_string()));
    let label = if compact {
        format!("{} {name}", action.title())
    } else {
        action.title().to_owned()
    };
    let kind = if action == VmAction::Delete {
        ButtonKind::Danger
    } else if leads_on(action) && !compact {
        ButtonKind::Primary
    } else {
        ButtonKind::Plain
    };
    view! {
        <Button
            id=format!("{}-{id}", action.name())
            label=label
            blocked=blocked(&vm, action)
            on_press=pressed(vm, action, busy)
            kind=kind
            icon=icon(action)
            icon_only=compact
            busy=busy
        />
    }
}

#[component]
fn ActionMenu(vm: ArcRwSignal<VmView>, compact: bool) -> impl IntoView {
    let (id, name) = vm.with_untracked(|vm| (vm.id, vm.name.to_string()));
    let menu = format!("menu-{id}");
    let label = if compact {
        format!("All actions on {name}")
    } else {
        "All actions".to_owned()
    };
    let items = menu.clone();
    view! {
        <Menu id=menu label=label icon=IconName::More icon_only=compact>
            {MENU
                .into_iter()
                .map(|action| view! { <ActionItem vm=vm.clone() action=action menu=items.clone()/> })
                .map(IntoAny::into_any).collect::<Vec<_>>()}
        </Menu>
    }
}

#[component]
fn ActionItem(vm: ArcRwSignal<VmView>, action: VmAction, menu: String) -> impl IntoView {
    view! {
        <MenuItem
            id=format!("{menu}-{}", action.name())
            menu=menu
            label=action.title()
            icon=icon(action)
            note=sentence(action.meaning())
            blocked=blocked(&vm, action)
            danger=action.is_destructive()
            first=action == VmAction::Console
            on_press=pressed(vm, action, RwSignal::new(false))
        />
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_as_a_button_is_accepted_in_the_state() {
        for state in VmState::ALL {
            for action in likely(state) {
                assert_eq!(action.judge(state), Ok(()), "{action} in {state}");
            }
        }
    }

    #[test]
    fn the_menu_holds_every_action_of_the_whole_vm_once() {
        let mut menu = MENU.to_vec();
        menu.sort_unstable();
        let mut all = VmAction::ALL.to_vec();
        // Of one snapshot, or of one volume: beside that.
        all.retain(|action| {
            !matches!(
                action,
                VmAction::Revert
                    | VmAction::RemoveSnapshot
                    | VmAction::Attach
                    | VmAction::Detach
                    | VmAction::Grow
                    | VmAction::Move
            )
        });
        all.sort_unstable();
        assert_eq!(menu, all);
    }
}
