//! The questions before what cannot be undone; one of each for all pages.

use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::VmId;
use vimana_model::vm::VmView;
use vimana_ui::{Confirm, ToastKind, Toasts};

use crate::api::delete_vm;
use crate::live::Live;
use crate::session::CurrentSession;

/// What is being asked about.
#[derive(Clone, Copy)]
pub struct Confirmations {
    vm: RwSignal<Option<(VmId, String)>>,
    open: RwSignal<bool>,
}

impl Confirmations {
    #[must_use]
    pub fn new() -> Self {
        Self {
            vm: RwSignal::new(None),
            open: RwSignal::new(false),
        }
    }

    /// Asks whether to delete `vm`.
    pub fn ask_delete(self, vm: &VmView) {
        self.vm.set(Some((vm.id, vm.name.to_string())));
        self.open.set(true);
    }
}

#[component]
pub fn ConfirmDialogs() -> impl IntoView {
    let Confirmations { vm, open } = expect_context::<Confirmations>();
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    let live = expect_context::<Live>();
    let name = move || vm.get().map(|(_, name)| name).unwrap_or_default();
    let delete = Callback::new(move |()| {
        let Some((id, name)) = vm.get_untracked() else {
            return;
        };
        let live = live.clone();
        spawn_local(async move {
            match live.ask(delete_vm(id)).await {
                Ok((asked, accepted)) => {
                    live.adopt(asked, accepted.vm);
                    toasts.show(ToastKind::Info, format!("{name} is being deleted."));
                }
                Err(error) => {
                    session.notice(&error);
                    toasts.show(ToastKind::Error, error.sentence());
                }
            }
        });
    });
    view! {
        <Confirm
            id="delete-vm"
            open=open
            title=Signal::derive(move || format!("Delete {}?", name()))
            text="It stops at once, and its disk is deleted with all that is on it. Nobody can bring it back."
            yes=Signal::derive(move || format!("Delete {}", name()))
            no="Keep it"
            on_yes=delete
        />
    }
}
