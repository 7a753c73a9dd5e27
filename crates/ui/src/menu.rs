//! A button that opens a list of things to do. Arrow keys walk through it,
//! Escape and a press outside close it, and what cannot be done now says why.

use leptos::ev::KeyboardEvent;
use leptos::prelude::*;

use crate::follow::{When, flag, press, text};
use crate::icon::{Icon, IconName};

/// The button and its list. What the list holds is made when it is first
/// opened, so that a page may have hundreds of them.
#[component]
pub fn Menu(
    /// Unique in the page.
    #[prop(into)]
    id: String,
    #[prop(into)] label: String,
    icon: IconName,
    /// Shows the icon alone; the label is read all the same.
    #[prop(optional)]
    icon_only: bool,
    /// [`MenuItem`]s and nothing else.
    children: ChildrenFn,
) -> impl IntoView {
    let opened = RwSignal::new(false);
    let list_id = format!("{id}-list");
    let (target, name) = (list_id.clone(), label.clone());
    view! {
        <span class="tip-host">
            <button
                r#type="button"
                id=id
                class="button"
                class:icon-only=icon_only
                data-kind="plain"
                aria-label=icon_only.then(|| label.clone())
                aria-haspopup="menu"
                popovertarget=target
                on:click=press(move || opened.set(true))
            >
                <Icon name=icon/>
                {(!icon_only).then(|| view! { <span>{label.clone()}</span> <Icon name=IconName::Chevron/> }.into_any())}
            </button>
            <span class="tip" role="tooltip" hidden=!icon_only>{label.clone()}</span>
        </span>
        <div id=list_id class="menu-list" popover="auto" role="menu" aria-label=name on:keydown=walk>
            <When is=opened>{children()}</When>
        </div>
    }
    .into_any()
}

/// One thing to do: its name, and what it does or why not now.
#[component]
pub fn MenuItem(
    /// Unique in the page.
    #[prop(into)]
    id: String,
    /// The id of the [`Menu`] it is in.
    #[prop(into)]
    menu: String,
    #[prop(into)] label: String,
    icon: IconName,
    /// What it does, in a sentence.
    #[prop(into)]
    note: String,
    #[prop(into, optional)] blocked: Signal<Option<String>>,
    #[prop(optional)] danger: bool,
    /// Opens with the focus on it.
    #[prop(optional)]
    first: bool,
    on_press: Callback<()>,
) -> impl IntoView {
    let list = format!("{menu}-list");
    let act = move || {
        if blocked.with_untracked(Option::is_none) {
            // The list closes first and gives the focus back to its button, so
            // that a dialog opened from here gives it back there as well.
            set_timeout(move || on_press.run(()), std::time::Duration::ZERO);
        }
    };
    let closes = move || blocked.with(Option::is_none).then(|| list.clone());
    view! {
        <button
            r#type="button"
            id=id
            class="menu-item"
            role="menuitem"
            data-kind=danger.then_some("danger")
            autofocus=first
            aria-disabled=flag(move || blocked.with(Option::is_some))
            popovertarget=closes
            popovertargetaction="hide"
            on:click=press(act)
        >
            <Icon name=icon/>
            <span class="menu-label">{label}</span>
            <span class="menu-note">{text(move || blocked.get().unwrap_or_else(|| note.clone()))}</span>
        </button>
    }
    .into_any()
}

/// Moves the focus along the list.
#[cfg(feature = "hydrate")]
fn walk(event: KeyboardEvent) {
    use wasm_bindgen::JsCast as _;

    let Some(here) = document().active_element() else {
        return;
    };
    let Ok(Some(menu)) = here.closest("[role=menu]") else {
        return;
    };
    let next = match event.key().as_str() {
        "ArrowDown" => here
            .next_element_sibling()
            .or_else(|| menu.first_element_child()),
        "ArrowUp" => here
            .previous_element_sibling()
            .or_else(|| menu.last_element_child()),
        "Home" => menu.first_element_child(),
        "End" => menu.last_element_child(),
        _ => return,
    };
    event.prevent_default();
    if let Some(next) = next.and_then(|next| next.dyn_into::<web_sys::HtmlElement>().ok()) {
        // What cannot take the focus leaves it where it is.
        let _ = next.focus();
    }
}

#[cfg(not(feature = "hydrate"))]
fn walk(_event: KeyboardEvent) {}
