//! How much of something is taken, and how far something is: a bar and its
//! numbers.

use leptos::prelude::*;

/// A bar with its numbers beside it, so that nobody has to guess from a length.
#[component]
pub fn Meter(
    /// What is measured: "Memory of host-1".
    #[prop(into)]
    label: String,
    #[prop(into)] used: Signal<f64>,
    #[prop(into)] max: Signal<f64>,
    /// The numbers, with unit: "1.5 of 4 GiB".
    #[prop(into)]
    text: Signal<String>,
) -> impl IntoView {
    view! {
        <span class="meter">
            <meter
                aria-label=label
                aria-valuetext=move || text.get()
                min="0"
                max=move || max.get().max(1.0)
                high=move || max.get().max(1.0) * 0.85
                value=move || used.get()
            ></meter>
            <span class="meter-text">{move || text.get()}</span>
        </span>
    }
}

/// How far something is. The bar never runs backwards, even where more turns
/// out to be left than was known.
#[component]
pub fn Progress(
    /// What is under way: "Save the memory".
    #[prop(into)]
    label: String,
    /// The part that is done, from 0 to 1.
    #[prop(into)]
    done: Signal<f64>,
    /// The numbers, with unit: "1.5 of 4 GiB".
    #[prop(into)]
    text: Signal<String>,
) -> impl IntoView {
    let most = Memo::new(move |before: Option<&f64>| {
        done.get().clamp(before.copied().unwrap_or(0.0), 1.0)
    });
    view! {
        <span class="meter">
            <progress aria-label=label aria-valuetext=move || text.get() max="1" value=move || most.get()></progress>
            <span class="meter-text">{move || text.get()}</span>
        </span>
    }
}
