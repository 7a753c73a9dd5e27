//! `/requests/:id`: one request: where it is, what was said, what can be done.

mod actions;
mod conversation;
mod decision;
mod picture;
mod terms;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::request::{RequestState, RequestView};
use vimana_ui::{Badge, Time, memo, text};

use super::lazy::lazy_page;
use super::load::{Asked, Found, FoundRequest, Loaded, Wanted, id_in_address};
use super::request_tone;
use super::timeline::Timeline;
use crate::live::{self, About, Live, Mark};
use crate::session::Caller;
use actions::RequestActions;
use conversation::Conversation;
use decision::{DecisionDesk, DecisionDialog};
use picture::RequestPicture;
use terms::{Machine, Terms};

lazy_page!(
    /// One request.
    RequestPage in requests = page, wants {
        let id = id_in_address();
        move || Wanted::Request(id.get())
    }
);

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    view! {
        <Loaded
            asked=asked
            show=Arc::new(move |_, asked, found| {
                let (request, events) = take_in(&live, asked, found)?;
                Some(view! { <Page request=request events=events/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                take_in(&again, asked, found);
            })
        />
    }
    .into_any()
}

fn take_in(
    live: &Live,
    asked: Mark,
    found: Found,
) -> Option<(ArcRwSignal<RequestView>, live::Timeline)> {
    let Found::Request(found) = found else {
        return None;
    };
    let FoundRequest { request, events } = *found;
    let about = About::Request(request.id);
    let request = live.adopt_request(asked, request);
    Some((request, live.open_timeline(about, events)))
}

#[component]
fn Page(request: ArcRwSignal<RequestView>, events: live::Timeline) -> impl IntoView {
    provide_context(DecisionDesk::new(request.clone()));
    let title = {
        let request = request.clone();
        move || request.with(|request| request.terms.name.clone())
    };
    view! {
        <Title text=title/>
        <Head request=request.clone()/>
        <div class="vm">
            <RequestPicture request=request.clone() events=events.clone()/>
            <div class="vm-main">
                <Machine request=request.clone()/>
                <Conversation request=request.clone()/>
            </div>
            <div class="vm-side">
                <Terms request=request/>
                <Timeline events=events/>
            </div>
        </div>
        <DecisionDialog/>
    }
    .into_any()
}

#[component]
fn Head(request: ArcRwSignal<RequestView>) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let (name, state, since, waits) = {
        let of = || request.clone();
        let (name, state, since, waits) = (of(), of(), of(), of());
        (
            memo(move || name.with(|request| request.terms.name.clone())),
            memo(move || state.with(|request| request.state)),
            Signal::derive(move || since.with(|request| request.state_since.as_ms())),
            memo(move || waits.with(|request| caller.waits_for(request))),
        )
    };
    let meaning = move || match (waits.get(), state.get()) {
        (true, state) => yours(state),
        (false, state) => state.meaning(),
    };
    view! {
        <div class="page-head">
            <div>
                <p class="crumb"><a href="/requests">"Requests"</a></p>
                <h1>{text(move || name.get())}</h1>
                <p class="state-line" role="status">
                    <Badge
                        tone=Signal::derive(move || request_tone(state.get()))
                        text=Signal::derive(move || state.get().name().to_owned())
                    />
                    <span>{text(meaning)}</span>
                    <span class="faint"><Time at_ms=since/></span>
                </p>
            </div>
            <RequestActions request=request/>
        </div>
    }
}

/// What the state means to the one it waits for.
const fn yours(state: RequestState) -> &'static str {
    match state {
        RequestState::Request => "waiting for your decision",
        RequestState::Returned => "waiting for your answer",
        RequestState::Release => "waiting for you to confirm the release",
        RequestState::Rejected
        | RequestState::Withdrawn
        | RequestState::Provision
        | RequestState::Operation
        | RequestState::Released => state.meaning(),
    }
}

/// The beginning of a text, for a row.
pub fn first_line(text: &str) -> String {
    const MOST: usize = 80;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or(line).trim_end()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_the_beginning_of_a_long_purpose() {
        assert_eq!(first_line("for the shop\nuntil March"), "for the shop");
        let long = "ä".repeat(100);
        assert_eq!(first_line(&long).chars().count(), 81);
    }
}
