//! What comes over the page and wants an answer.

use leptos::html;
use leptos::prelude::*;

use crate::follow::{When, part, press};
use crate::prose::Prose;

/// A modal panel. It is open while `open` holds; `on_close` ends that, also
/// after Escape. What it holds is made when it opens, so that nothing of the
/// last time is left.
#[component]
pub fn Dialog(
    /// Unique in the page.
    id: &'static str,
    #[prop(into)] open: Signal<bool>,
    on_close: Callback<()>,
    #[prop(into)] title: Signal<String>,
    /// A press outside closes it: nothing typed would be lost.
    #[prop(optional)]
    light: bool,
    /// Room for a form.
    #[prop(optional)]
    wide: bool,
    children: ChildrenFn,
) -> impl IntoView {
    let dialog = NodeRef::<html::Dialog>::new();
    Effect::new(move |_| {
        let wanted = open.get();
        if let Some(dialog) = dialog.get() {
            // After what it holds is there: the focus goes into it.
            request_animation_frame(move || show(&dialog, wanted));
        }
    });
    let title_id = format!("{id}-title");
    let labelled_by = title_id.clone();
    view! {
        <dialog
            node_ref=dialog
            id=id
            class="dialog"
            class:wide=wide
            aria-labelledby=labelled_by
            closedby=if light { "any" } else { "closerequest" }
            on:close=move |_| {
                if open.get_untracked() {
                    on_close.run(());
                }
            }
        >
            <h2 id=title_id>{title}</h2>
            <When is=open>{children()}</When>
        </dialog>
    }
    .into_any()
}

/// A question that must be answered before anything irreversible happens.
/// Escape, `no` and a press outside answer no.
#[component]
pub fn Confirm(
    /// Unique in the page.
    id: &'static str,
    #[prop(into)] open: Signal<bool>,
    on_close: Callback<()>,
    #[prop(into)] title: Signal<String>,
    #[prop(into)] text: Signal<String>,
    /// What the answer yes does, as a verb.
    #[prop(into)]
    yes: Signal<String>,
    #[prop(into)] no: String,
    on_yes: Callback<()>,
) -> impl IntoView {
    let confirm = move || {
        on_close.run(());
        on_yes.run(());
    };
    view! {
        <Dialog id=id open=open on_close=on_close title=title light=true>
            <p>{part(move || Some(view! { <Prose text=text.get()/> }))}</p>
            <div class="dialog-answers">
                <button r#type="button" class="button" data-kind="plain" on:click=press(move || on_close.run(()))>
                    {no.clone()}
                </button>
                <button r#type="button" class="button" data-kind="danger" on:click=press(confirm)>
                    {yes}
                </button>
            </div>
        </Dialog>
    }
}

#[cfg(feature = "hydrate")]
fn show(dialog: &web_sys::HtmlDialogElement, wanted: bool) {
    if wanted && !dialog.open() {
        // Fails only on a dialog that is not in the document.
        let _ = dialog.show_modal();
    } else if !wanted && dialog.open() {
        dialog.close();
    }
}

#[cfg(not(feature = "hydrate"))]
fn show<T>(_dialog: &T, _wanted: bool) {}
