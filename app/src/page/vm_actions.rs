//! The buttons of one VM, in its row and on its page.

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_navigate;
use vimana_model::VmState;
use vimana_model::action::VmAction;
use vimana_model::vm::VmView;
use vimana_ui::{Button, ButtonKind, IconName, ToastKind, Toasts};

use super::confirm::Confirmations;
use crate::api::{ApiResult, hold_vm, release_vm, shutdown_vm};
use crate::live::{Live, Mark};
use crate::session::{Caller, CurrentSession};

/// What one looks for first stands first; what cannot be undone, last.
const ORDER: [VmAction; 5] = [
    VmAction::Console,
    VmAction::Hold,
    VmAction::Release,
    VmAction::Shutdown,
    VmAction::Delete,
];

/// Every action on the VM. What is refused now says why.
#[component]
pub fn VmActions(
    vm: ArcRwSignal<VmView>,
    /// Icons alone, and of hold and release only the one that fits.
    #[prop(optional)]
    compact: bool,
) -> impl IntoView {
    let held = {
        let vm = vm.clone();
        Memo::new(move |_| vm.with(|vm| vm.state == VmState::Hold))
    };
    view! {
        <div class="actions" role="group" aria-label="Actions">
            {ORDER
                .into_iter()
                .map(|action| {
                    let vm = vm.clone();
                    let fits = move || match action {
                        VmAction::Hold => !compact || !held.get(),
                        VmAction::Release => !compact || held.get(),
                        VmAction::Shutdown | VmAction::Delete | VmAction::Console => true,
                    };
                    view! { <Show when=fits><ActionButton vm=vm.clone() action=action compact=compact/></Show> }
                })
                .collect_view()}
        </div>
    }
    .into_any()
}

#[component]
fn ActionButton(vm: ArcRwSignal<VmView>, action: VmAction, compact: bool) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let confirmations = expect_context::<Confirmations>();
    let navigate = use_navigate();
    let busy = RwSignal::new(false);
    let blocked = {
        let vm = vm.clone();
        Memo::new(move |_| vm.with(|vm| caller.refusal(action, vm)))
    };
    let (id, name) = vm.with_untracked(|vm| (vm.id, vm.name.clone()));
    let label = if compact {
        format!("{} {name}", title(action))
    } else {
        title(action).to_owned()
    };
    let press = Callback::new(move |()| {
        match action {
            VmAction::Console => {
                return navigate(
                    &format!("/vms/{id}?console=open#console"),
                    Default::default(),
                );
            }
            VmAction::Delete => return vm.with_untracked(|vm| confirmations.ask_delete(vm)),
            VmAction::Hold | VmAction::Release | VmAction::Shutdown => {}
        }
        busy.set(true);
        let live = live.clone();
        let name = name.clone();
        spawn_local(async move {
            let answer: ApiResult<(Mark, VmView)> = match action {
                VmAction::Hold => live.ask(hold_vm(id)).await,
                VmAction::Release => live.ask(release_vm(id)).await,
                VmAction::Shutdown => live.ask(shutdown_vm(id)).await.map(|(m, a)| (m, a.vm)),
                VmAction::Delete | VmAction::Console => return,
            };
            busy.try_set(false);
            match answer {
                Ok((asked, vm)) => {
                    live.adopt(asked, vm);
                    toasts.show(ToastKind::Info, format!("{name} {}", outcome(action)));
                }
                Err(error) => {
                    session.notice(&error);
                    toasts.show(ToastKind::Error, error.sentence());
                }
            }
        });
    });
    view! {
        <Button
            id=format!("{}-{id}", action.name())
            label=label
            on_press=press
            kind=if action == VmAction::Delete { ButtonKind::Danger } else { ButtonKind::Plain }
            icon=icon(action)
            icon_only=compact
            blocked=blocked
            busy=busy
        />
    }
}

const fn title(action: VmAction) -> &'static str {
    match action {
        VmAction::Hold => "Hold",
        VmAction::Release => "Release",
        VmAction::Shutdown => "Shut down",
        VmAction::Delete => "Delete",
        VmAction::Console => "Console",
    }
}

const fn icon(action: VmAction) -> IconName {
    match action {
        VmAction::Hold => IconName::Hold,
        VmAction::Release => IconName::Release,
        VmAction::Shutdown => IconName::Power,
        VmAction::Delete => IconName::Trash,
        VmAction::Console => IconName::Console,
    }
}

const fn outcome(action: VmAction) -> &'static str {
    match action {
        VmAction::Hold => "is held.",
        VmAction::Release => "is released.",
        VmAction::Shutdown => "is asked to switch itself off.",
        VmAction::Delete => "is being deleted.",
        VmAction::Console => "",
    }
}
