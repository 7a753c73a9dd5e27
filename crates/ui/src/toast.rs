//! Short messages that come by themselves, read out as they come.

use std::time::Duration;

use leptos::prelude::*;

use crate::follow::{Each, Item, press};
use crate::icon::{Icon, IconName};
use crate::prose::Prose;

/// Most messages on the screen; the oldest goes first.
const MAX_TOASTS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToastKind {
    Info,
    Error,
}

/// What a message offers to do: take back what it tells of.
#[derive(Clone)]
pub struct Offer {
    /// As a verb.
    pub label: &'static str,
    pub on_press: Callback<()>,
}

#[derive(Clone)]
struct Toast {
    number: u32,
    kind: ToastKind,
    text: String,
    offer: Option<Offer>,
}

/// How long an information stays, and one that offers something.
const STAYS: Duration = Duration::from_secs(6);
const STAYS_FOR_AN_ANSWER: Duration = Duration::from_secs(20);

/// The messages on the screen; lives in the context of the whole page.
#[derive(Clone, Copy)]
pub struct Toasts {
    shown: RwSignal<Vec<Toast>>,
    next: StoredValue<u32>,
}

impl Toasts {
    pub fn provide() {
        provide_context(Self {
            shown: RwSignal::new(Vec::new()),
            next: StoredValue::new(0),
        });
    }

    /// An information goes away by itself; an error stays until it is closed.
    pub fn show(self, kind: ToastKind, text: String) {
        self.put(kind, text, None);
    }

    /// An information that offers to do something about it.
    pub fn offer(self, text: String, offer: Offer) {
        self.put(ToastKind::Info, text, Some(offer));
    }

    fn put(self, kind: ToastKind, text: String, offer: Option<Offer>) {
        let Some(number) = self.next.try_get_value() else {
            return;
        };
        self.next.set_value(number.wrapping_add(1));
        let stays = if offer.is_some() {
            STAYS_FOR_AN_ANSWER
        } else {
            STAYS
        };
        self.shown.update(|shown| {
            if shown.len() >= MAX_TOASTS {
                shown.remove(0);
            }
            shown.push(Toast {
                number,
                kind,
                text,
                offer,
            });
        });
        if kind == ToastKind::Info {
            set_timeout(move || self.close(number), stays);
        }
    }

    fn close(self, number: u32) {
        self.shown
            .try_update(|shown| shown.retain(|toast| toast.number != number));
    }
}

/// Where the messages appear; once in a page.
#[component]
pub fn ToastRegion() -> impl IntoView {
    let Some(toasts) = use_context::<Toasts>() else {
        return ().into_any();
    };
    let items = Signal::derive(move || {
        let shown = toasts.shown.get();
        let item = |toast: Toast| Item::new(toast.number, move || shown_toast(toasts, &toast));
        shown.into_iter().map(item).collect()
    });
    view! {
        <div class="toasts" role="status" aria-live="polite">
            <Each items=items/>
        </div>
    }
    .into_any()
}

fn shown_toast(toasts: Toasts, toast: &Toast) -> impl IntoView + use<> {
    let (kind, icon) = match toast.kind {
        ToastKind::Info => ("info", IconName::Check),
        ToastKind::Error => ("error", IconName::Warning),
    };
    let number = toast.number;
    let offer = toast.offer.clone().map(|Offer { label, on_press }| {
        let take = move || {
            toasts.close(number);
            on_press.run(());
        };
        view! {
            <button r#type="button" class="button" data-kind="plain" on:click=press(take)>
                {label}
            </button>
        }
        .into_any()
    });
    view! {
        <div class="toast" data-kind=kind>
            <Icon name=icon/>
            <p><Prose text=toast.text.clone()/></p>
            {offer}
            <button
                r#type="button"
                class="button icon-only"
                data-kind="bare"
                aria-label="Close this message"
                on:click=press(move || toasts.close(number))
            >
                <Icon name=IconName::Cross/>
            </button>
        </div>
    }
}
