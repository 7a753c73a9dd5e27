//! A question that must be answered before anything irreversible happens.

use leptos::html;
use leptos::prelude::*;

/// A modal question. It is open while `open` holds; Escape, "Keep" and a press
/// outside answer no.
#[component]
pub fn Confirm(
    /// Unique in the page.
    id: &'static str,
    open: RwSignal<bool>,
    #[prop(into)] title: Signal<String>,
    #[prop(into)] text: Signal<String>,
    /// What the answer yes does, as a verb.
    #[prop(into)]
    yes: Signal<String>,
    #[prop(into)] no: String,
    on_yes: Callback<()>,
) -> impl IntoView {
    let dialog = NodeRef::<html::Dialog>::new();
    Effect::new(move |_| {
        let wanted = open.get();
        if let Some(dialog) = dialog.get() {
            show(&dialog, wanted);
        }
    });
    let title_id = format!("{id}-title");
    let text_id = format!("{id}-text");
    let (labelled_by, described_by) = (title_id.clone(), text_id.clone());
    let confirm = move |_| {
        open.set(false);
        on_yes.run(());
    };
    view! {
        <dialog
            node_ref=dialog
            id=id
            class="dialog"
            aria-labelledby=labelled_by
            aria-describedby=described_by
            closedby="any"
            on:close=move |_| open.set(false)
        >
            <h2 id=title_id>{move || title.get()}</h2>
            <p id=text_id>{move || text.get()}</p>
            <div class="dialog-answers">
                <button r#type="button" class="button" data-kind="plain" on:click=move |_| open.set(false)>
                    {no}
                </button>
                <button r#type="button" class="button" data-kind="danger" on:click=confirm>
                    {move || yes.get()}
                </button>
            </div>
        </dialog>
    }
    .into_any()
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
