//! Sentences that name things: what stands between backticks is code.

use leptos::prelude::*;

/// A text whose `backticks` mark code.
#[component]
pub fn Prose(#[prop(into)] text: String) -> impl IntoView {
    text.split('`')
        .enumerate()
        .filter(|(_, part)| !part.is_empty())
        .map(|(n, part)| {
            let part = part.to_owned();
            if n % 2 == 1 {
                view! { <code>{part}</code> }.into_any()
            } else {
                part.into_any()
            }
        })
        .map(IntoAny::into_any)
        .collect::<Vec<_>>()
}
