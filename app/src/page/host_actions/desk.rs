use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::evacuation::{DEFAULT_LIMIT, EvacuateHost};
use vimana_model::host::HostView;
use vimana_ui::{ToastKind, Toasts};

use super::HostAction;
use crate::api::{ApiError, HostWish, Key, once, wish_of_host};
use crate::live::Live;
use crate::session::CurrentSession;

/// Where wishes of hosts are taken in: an evacuation is asked about first, and
/// all say how they went.
#[derive(Clone)]
pub struct HostDesk {
    live: Live,
    session: CurrentSession,
    toasts: Toasts,
    /// The host that is being asked about.
    asked: RwSignal<Option<ArcRwSignal<HostView>>>,
    open: RwSignal<bool>,
    /// How many of its VMs go at once, unless another number is given.
    limit: RwSignal<u32>,
}

impl HostDesk {
    #[must_use]
    pub fn new() -> Self {
        Self {
            live: expect_context::<Live>(),
            session: expect_context::<CurrentSession>(),
            toasts: expect_context::<Toasts>(),
            asked: RwSignal::new(None),
            open: RwSignal::new(false),
            limit: RwSignal::new(DEFAULT_LIMIT),
        }
    }

    /// Does it, or asks first.
    pub fn press(&self, action: HostAction, host: &ArcRwSignal<HostView>, busy: RwSignal<bool>) {
        match action {
            HostAction::Cordon => self.act_in_background(HostWish::Cordon, host, busy),
            HostAction::Enable => self.act_in_background(HostWish::Enable, host, busy),
            HostAction::Evacuate => self.ask_limit(host, DEFAULT_LIMIT),
        }
    }

    /// Asks how many of its VMs are to be on their way at once; `limit` are now, or
    /// where nobody says how many.
    pub fn ask_limit(&self, host: &ArcRwSignal<HostView>, limit: u32) {
        self.asked.set(Some(host.clone()));
        self.limit.set(limit);
        self.open.set(true);
    }

    pub fn limit(&self) -> u32 {
        self.limit.get_untracked()
    }

    #[must_use]
    pub fn asked(&self) -> Option<ArcRwSignal<HostView>> {
        self.asked.get()
    }

    /// Whether the question is open, for the dialog to read and to close.
    #[must_use]
    pub fn opened(&self) -> (Signal<bool>, Callback<()>) {
        let open = self.open;
        (open.into(), Callback::new(move |()| open.set(false)))
    }

    fn act_in_background(
        &self,
        wish: HostWish,
        host: &ArcRwSignal<HostView>,
        busy: RwSignal<bool>,
    ) {
        let (desk, host) = (self.clone(), host.clone());
        busy.set(true);
        spawn_local(async move {
            let done = desk.act(wish, &host).await;
            busy.try_set(false);
            if let Err(error) = done {
                desk.toasts.show(ToastKind::Error, error.sentence());
            }
        });
    }

    /// Moves its VMs away.
    ///
    /// # Errors
    /// Why it was not begun; the caller shows it.
    pub async fn evacuate(
        &self,
        host: &ArcRwSignal<HostView>,
        form: EvacuateHost,
    ) -> Result<(), ApiError> {
        self.act(HostWish::Evacuate(form), host).await
    }

    async fn act(&self, wish: HostWish, host: &ArcRwSignal<HostView>) -> Result<(), ApiError> {
        let (id, name) = host.with_untracked(|host| (host.id, host.name.clone()));
        let answer = once(Key::fresh(), |key| wish_of_host(id, wish, key));
        match self.live.ask(answer).await {
            Ok((asked, host)) => {
                self.live.renew_host(asked, host);
                let text = format!("{name} {}", outcome(wish));
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

const fn outcome(wish: HostWish) -> &'static str {
    match wish {
        HostWish::Cordon => "is cordoned: it takes no new VMs.",
        HostWish::Evacuate(_) => "is being evacuated.",
        HostWish::Enable => "takes VMs again.",
    }
}
