use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::image::{ImageAction, ImageState, ImageView};
use vimana_ui::{Offer, ToastKind, Toasts};

use crate::api::{Key, act_on_image, once};
use crate::live::Live;
use crate::session::CurrentSession;

/// Where actions on images are taken in: what nobody could take back is asked
/// about first, and all say how they went.
#[derive(Clone)]
pub struct ImageDesk {
    live: Live,
    session: CurrentSession,
    toasts: Toasts,
    /// What is being asked about.
    asked: RwSignal<Option<(ImageAction, ArcRwSignal<ImageView>)>>,
    open: RwSignal<bool>,
}

impl ImageDesk {
    #[must_use]
    pub fn new() -> Self {
        Self {
            live: expect_context::<Live>(),
            session: expect_context::<CurrentSession>(),
            toasts: expect_context::<Toasts>(),
            asked: RwSignal::new(None),
            open: RwSignal::new(false),
        }
    }

    /// Does it, or asks first.
    pub fn press(&self, action: ImageAction, image: &ArcRwSignal<ImageView>, busy: RwSignal<bool>) {
        let state = image.with_untracked(|image| image.state);
        let lost = match action {
            ImageAction::Purge => true,
            ImageAction::Delete => state == ImageState::Importing,
            ImageAction::Restore | ImageAction::Retry => false,
        };
        if lost {
            self.asked.set(Some((action, image.clone())));
            self.open.set(true);
        } else {
            self.act(action, image.clone(), busy);
        }
    }

    #[must_use]
    pub fn asked(&self) -> Option<(ImageAction, ArcRwSignal<ImageView>)> {
        self.asked.get()
    }

    /// Whether the question is open, for the dialog to read and to close.
    #[must_use]
    pub fn opened(&self) -> (Signal<bool>, Callback<()>) {
        let open = self.open;
        (open.into(), Callback::new(move |()| open.set(false)))
    }

    /// Does what was asked about.
    pub fn confirm(&self) {
        if let Some((action, image)) = self.asked.get_untracked() {
            self.act(action, image, RwSignal::new(false));
        }
    }

    fn act(&self, action: ImageAction, image: ArcRwSignal<ImageView>, busy: RwSignal<bool>) {
        let desk = self.clone();
        busy.set(true);
        spawn_local(async move {
            let id = image.with_untracked(|image| image.id);
            let answer = once(Key::fresh(), |key| act_on_image(id, action, key));
            let answer = desk.live.ask(answer).await;
            busy.try_set(false);
            match answer {
                Ok((asked, image)) => desk.say(action, &desk.live.adopt_image(asked, image)),
                Err(error) => {
                    desk.session.notice(&error);
                    desk.toasts.show(ToastKind::Error, error.sentence());
                }
            }
        });
    }

    /// Says how it went; what can be taken back offers that.
    fn say(&self, action: ImageAction, image: &ArcRwSignal<ImageView>) {
        let (name, state) = image.with_untracked(|image| (image.name.clone(), image.state));
        let text = format!("{name} {}", outcome(action, state));
        if state != ImageState::Trashed {
            return self.toasts.show(ToastKind::Info, text);
        }
        let (desk, image) = (self.clone(), image.clone());
        // The page it was deleted on may be gone by then; its memory is not.
        let undo = move |()| desk.act(ImageAction::Restore, image.clone(), RwSignal::new(false));
        self.toasts.offer(
            text,
            Offer {
                label: "Undo",
                on_press: Callback::new(undo),
            },
        );
    }
}

const fn outcome(action: ImageAction, state: ImageState) -> &'static str {
    match (action, state) {
        (ImageAction::Delete, ImageState::Trashed) => "is in the trash.",
        (ImageAction::Delete | ImageAction::Purge, _) => "is removed.",
        (ImageAction::Restore, _) => "is back in the catalogue.",
        (ImageAction::Retry, _) => "is being imported again.",
    }
}
