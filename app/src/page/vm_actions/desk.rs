use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::action::VmAction;
use vimana_model::vm::VmView;
use vimana_ui::{ToastKind, Toasts};

use crate::api::{ApiError, Key, VmArgs, act_on_vm, once};
use crate::live::Live;
use crate::session::CurrentSession;

/// Where actions on VMs are taken in: some are asked about first, and all say
/// how they went. One for all pages.
#[derive(Clone)]
pub struct VmDesk {
    live: Live,
    session: CurrentSession,
    toasts: Toasts,
    /// What is being asked about.
    asked: RwSignal<Option<Asked>>,
    open: RwSignal<Option<Question>>,
}

#[derive(Clone)]
pub struct Asked {
    pub action: VmAction,
    pub vm: ArcRwSignal<VmView>,
    /// Name of the host that it was dropped on.
    pub host: Option<String>,
}

/// The dialog that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Yes or no.
    Sure,
    /// Gently or at once.
    PowerOff,
    /// To which size.
    Resize,
    Snapshot,
    /// To which host.
    Migrate,
}

impl VmDesk {
    #[must_use]
    pub fn new() -> Self {
        Self {
            live: expect_context::<Live>(),
            session: expect_context::<CurrentSession>(),
            toasts: expect_context::<Toasts>(),
            asked: RwSignal::new(None),
            open: RwSignal::new(None),
        }
    }

    /// Does it, or asks first.
    pub fn press(&self, action: VmAction, vm: &ArcRwSignal<VmView>, busy: RwSignal<bool>) {
        let question = match action {
            VmAction::Delete | VmAction::Shutdown | VmAction::Reset => Question::Sure,
            VmAction::PowerOff => Question::PowerOff,
            VmAction::Resize => Question::Resize,
            VmAction::Snapshot => Question::Snapshot,
            VmAction::Migrate => Question::Migrate,
            VmAction::Hold
            | VmAction::Release
            | VmAction::Suspend
            | VmAction::Stop
            | VmAction::Resume
            | VmAction::Start
            | VmAction::Reboot
            | VmAction::Retry
            | VmAction::Revert
            | VmAction::RemoveSnapshot
            | VmAction::Backup
            | VmAction::Attach
            | VmAction::Detach
            | VmAction::Grow
            | VmAction::Move
            | VmAction::Console => {
                return self.act_in_background(action, vm.clone(), VmArgs::None, busy);
            }
        };
        self.open_question(question, action, vm, None);
    }

    /// Asks whether it is to go to that host.
    pub fn press_migrate_to(&self, vm: &ArcRwSignal<VmView>, host: String) {
        self.open_question(Question::Migrate, VmAction::Migrate, vm, Some(host));
    }

    fn open_question(
        &self,
        question: Question,
        action: VmAction,
        vm: &ArcRwSignal<VmView>,
        host: Option<String>,
    ) {
        let vm = vm.clone();
        self.asked.set(Some(Asked { action, vm, host }));
        self.open.set(Some(question));
    }

    #[must_use]
    pub fn asked(&self) -> Option<Asked> {
        self.asked.get()
    }

    /// Whether a dialog is open, for the dialog to read and to close.
    #[must_use]
    pub fn opened(&self, question: Question) -> (Signal<bool>, Callback<()>) {
        let open = self.open;
        (
            Signal::derive(move || open.get() == Some(question)),
            Callback::new(move |()| open.set(None)),
        )
    }

    /// Does what was asked about.
    pub fn confirm(&self, args: VmArgs) {
        if let Some(Asked { action, vm, .. }) = self.asked.get_untracked() {
            self.ask(action, vm, args);
        }
    }

    /// Does it, and tells where it is refused.
    pub fn ask(&self, action: VmAction, vm: ArcRwSignal<VmView>, args: VmArgs) {
        self.act_in_background(action, vm, args, RwSignal::new(false));
    }

    fn act_in_background(
        &self,
        action: VmAction,
        vm: ArcRwSignal<VmView>,
        args: VmArgs,
        busy: RwSignal<bool>,
    ) {
        let desk = self.clone();
        busy.set(true);
        spawn_local(async move {
            let done = desk.act(action, vm, args).await;
            busy.try_set(false);
            if let Err(error) = done {
                desk.toasts.show(ToastKind::Error, error.sentence());
            }
        });
    }

    /// Does it and says so.
    ///
    /// # Errors
    /// Why it was not done; the caller shows it.
    pub async fn act(
        &self,
        action: VmAction,
        vm: ArcRwSignal<VmView>,
        args: VmArgs,
    ) -> Result<(), ApiError> {
        let (id, name) = vm.with_untracked(|vm| (vm.id, vm.name.clone()));
        let answer = once(Key::fresh(), |key| act_on_vm(id, action, args.clone(), key));
        match self.live.ask(answer).await {
            Ok((asked, vm)) => {
                let goes_on = vm
                    .operation
                    .as_ref()
                    .is_some_and(|operation| !operation.state.is_over());
                self.live.adopt(asked, vm);
                let text = format!("{name} {}", outcome(action, goes_on));
                self.toasts.show(ToastKind::Info, text);
                Ok(())
            }
            Err(error) => {
                self.session.notice(&error);
                Err(error)
            }
        }
    }
}

const fn outcome(action: VmAction, goes_on: bool) -> &'static str {
    match action {
        VmAction::Hold => "is held.",
        VmAction::Release => "is released.",
        VmAction::Suspend => "is being suspended.",
        VmAction::Stop => "is being stopped.",
        VmAction::Resume => "is being resumed.",
        VmAction::PowerOff => "is being switched off.",
        VmAction::Start => "is being started.",
        VmAction::Reboot => "is asked to restart.",
        VmAction::Reset => "is being reset.",
        VmAction::Resize if goes_on => "is being resized.",
        VmAction::Resize => "has its new size.",
        VmAction::Snapshot => "has a snapshot taken of it.",
        VmAction::Revert => "goes back to the snapshot.",
        VmAction::RemoveSnapshot => "has a snapshot deleted.",
        VmAction::Backup => "is being backed up.",
        VmAction::Attach => "is being given the volume.",
        VmAction::Detach => "lets go of the volume.",
        VmAction::Grow => "has a volume made larger.",
        VmAction::Move => "has its disks moved.",
        VmAction::Migrate => "goes to another host.",
        VmAction::Retry => "is tried again.",
        VmAction::Shutdown => "is asked to switch itself off.",
        VmAction::Delete => "is being deleted.",
        VmAction::Console => "",
    }
}
