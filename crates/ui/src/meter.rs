//! How much of something is taken: a bar and its numbers.

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
