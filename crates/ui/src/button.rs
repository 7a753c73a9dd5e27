//! Buttons. A blocked one stays focusable and says why.

use std::sync::Arc;

use leptos::prelude::*;

use crate::follow::{Follow, flag, press, text};
use crate::icon::{Icon, IconName};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ButtonKind {
    #[default]
    Plain,
    Primary,
    Danger,
}

impl ButtonKind {
    const fn slug(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Primary => "primary",
            Self::Danger => "danger",
        }
    }
}

/// A button. While `blocked` holds a sentence, pressing does nothing, and the
/// sentence shows on hover and on focus and is read with the button.
#[component]
pub fn Button(
    /// Unique in the page; the sentence is tied to the button by it.
    #[prop(into)]
    id: String,
    #[prop(into)] label: Signal<String>,
    on_press: Callback<()>,
    #[prop(optional)] kind: ButtonKind,
    #[prop(optional)] icon: Option<IconName>,
    /// Shows the icon alone; the label is read all the same.
    #[prop(optional)]
    icon_only: bool,
    #[prop(into, optional)] blocked: Signal<Option<String>>,
    #[prop(into, optional)] busy: Signal<bool>,
) -> impl IntoView {
    let tip_id = format!("{id}-why");
    let described_by: Follow<Option<String>> = {
        let tip_id = tip_id.clone();
        Arc::new(move || blocked.with(Option::is_some).then(|| tip_id.clone()))
    };
    let name: Follow<Option<String>> = Arc::new(move || icon_only.then(|| label.get()));
    let act = move || {
        if blocked.with_untracked(Option::is_none) && !busy.get_untracked() {
            on_press.run(());
        }
    };
    // An icon alone needs its name for those who see as well.
    let hidden: Follow<bool> = Arc::new(move || !icon_only && blocked.with(Option::is_none));
    let tip = move || blocked.get().or_else(|| icon_only.then(|| label.get()));
    view! {
        <span class="tip-host">
            <button
                r#type="button"
                id=id
                class="button"
                class:icon-only=icon_only
                data-kind=kind.slug()
                aria-label=name
                aria-disabled=flag(move || blocked.with(Option::is_some))
                aria-describedby=described_by
                aria-busy=flag(move || busy.get())
                on:click=press(act)
            >
                {icon.map(|name| view! { <Icon name=name/> })}
                {(!icon_only).then(|| view! { <span>{label}</span> }.into_any())}
            </button>
            <span class="tip" role="tooltip" id=tip_id hidden=hidden>
                {text(move || tip().unwrap_or_default())}
            </span>
        </span>
    }
    .into_any()
}
