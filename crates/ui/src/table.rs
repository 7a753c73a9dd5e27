//! Tables that become cards where there is no room for columns. The roles are
//! written out because the cards' `display` would take them away.

use leptos::prelude::*;

/// A table with a caption for those who cannot see it.
#[component]
pub fn Table(
    #[prop(into)] caption: String,
    columns: &'static [&'static str],
    /// The rows: `<tr role="row">` each.
    children: Children,
) -> impl IntoView {
    view! {
        <table class="table" role="table">
            <caption class="unseen">{caption}</caption>
            <thead role="rowgroup">
                <tr role="row">
                    {columns
                        .iter()
                        .map(|title| view! { <th role="columnheader" scope="col">{*title}</th> }.into_any())
                        .map(IntoAny::into_any).collect::<Vec<_>>()}
                </tr>
            </thead>
            <tbody role="rowgroup">{children()}</tbody>
        </table>
    }
}

/// One cell; `title` names it on a card.
#[component]
pub fn Cell(#[prop(into)] title: &'static str, children: Children) -> impl IntoView {
    view! { <td role="cell" data-title=title>{children()}</td> }
}
