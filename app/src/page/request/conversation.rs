use leptos::prelude::*;
use vimana_model::request::{Remark, RequestAction, RequestView};
use vimana_ui::{Each, Item, Time, Tone, memo};

/// What was said and done, in the order it came.
#[component]
pub fn Conversation(request: ArcRwSignal<RequestView>) -> impl IntoView {
    let requester = request.with_untracked(|request| request.requester.clone());
    let count = {
        let request = request.clone();
        memo(move || request.with(|request| request.remarks.len()))
    };
    let said = Signal::derive(move || {
        let said = |n: usize| {
            let (request, requester) = (request.clone(), requester.clone());
            Item::new(n, move || {
                let remark = request.with_untracked(|request| request.remarks.get(n).cloned());
                remark.map(|remark| {
                    let own = remark.by == requester;
                    view! { <Said remark=remark own=own/> }
                })
            })
        };
        (0..count.get()).map(said).collect()
    });
    view! {
        <section class="panel" aria-labelledby="conversation-title">
            <h2 id="conversation-title">"Conversation"</h2>
            <ol class="conversation">
                <Each items=said/>
            </ol>
        </section>
    }
    .into_any()
}

#[component]
fn Said(remark: Remark, own: bool) -> impl IntoView {
    let Remark {
        at,
        by,
        action,
        text,
        changes,
    } = remark;
    view! {
        <li data-side=if own { "requester" } else { "manager" } data-tone=action.and_then(tone).map(Tone::slug)>
            <p class="said-head">
                <strong>{by.to_string()}</strong>
                <span>{action.map_or("asked for a machine", verb)}</span>
                <span class="faint"><Time at_ms=at.as_ms()/></span>
            </p>
            {(!text.is_empty()).then(|| view! { <p class="said">{text}</p> }.into_any())}
            {(!changes.is_empty()).then(|| view! {
                <ul class="said-changes">
                    {changes.into_iter().map(|change| view! { <li>{change}</li> }.into_any()).collect::<Vec<_>>()}
                </ul>
            }.into_any())}
        </li>
    }
}

/// What somebody did, after their name.
const fn verb(action: RequestAction) -> &'static str {
    match action {
        RequestAction::Approve => "approved it",
        RequestAction::Reject => "rejected it",
        RequestAction::AskBack => "asked back",
        RequestAction::Answer => "answered",
        RequestAction::Withdraw => "withdrew it",
        RequestAction::AskRelease => "asked for its release",
        RequestAction::ConfirmRelease => "confirmed the release",
        RequestAction::Keep => "lets it run on",
    }
}

const fn tone(action: RequestAction) -> Option<Tone> {
    match action {
        RequestAction::Approve => Some(Tone::Good),
        RequestAction::Reject => Some(Tone::Bad),
        RequestAction::AskBack
        | RequestAction::Answer
        | RequestAction::Withdraw
        | RequestAction::AskRelease
        | RequestAction::ConfirmRelease
        | RequestAction::Keep => None,
    }
}
