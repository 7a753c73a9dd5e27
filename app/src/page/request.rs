//! `/requests/:id`: one request: where it is, what was said, what can be done.

mod actions;
mod conversation;
mod decision;
mod picture;
mod terms;

use futures::join;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::components::A;
use leptos_router::hooks::use_params_map;
use vimana_model::event::EventView;
use vimana_model::request::{RequestState, RequestView};
use vimana_model::{Error, RequestId};
use vimana_ui::{Badge, Time};

use super::problem::ProblemView;
use super::request_tone;
use super::timeline::Timeline;
use crate::api::{ApiError, ApiResult, request, request_timeline};
use crate::live::{self, About, Live, Mark};
use crate::session::{Caller, CurrentSession};
use actions::RequestActions;
use conversation::Conversation;
use decision::{DecisionDesk, DecisionDialog};
use picture::RequestPicture;
use terms::{Machine, Terms};

#[component]
pub fn RequestPage() -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let params = use_params_map();
    let id = Memo::new(move |_| {
        params.with(|params| params.get_str("id").unwrap_or_default().to_owned())
    });
    let asking = live.clone();
    let all = Resource::new_blocking(move || id.get(), move |id| asking.ask(load(id)));
    let reload = live.clone();
    live.on_reset(move || {
        let live = reload.clone();
        let Some(id) = id.try_get_untracked() else {
            return;
        };
        spawn_local(async move {
            if let Ok(found) = live.ask(load(id)).await {
                take_in(&live, found);
            }
        });
    });
    view! {
        <Transition fallback=|| view! { <p class="loading">"Loading…"</p> }>
            {move || {
                let live = live.clone();
                Suspend::new(async move {
                    match session.and(all).await {
                        Ok((caller, found)) => {
                            provide_context(caller);
                            let (request, events) = take_in(&live, found);
                            view! { <Page request=request events=events/> }.into_any()
                        }
                        Err(error) => view! { <ProblemView error=error/> }.into_any(),
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}

type Found = (RequestView, Vec<EventView>);

/// Reads everything about the request. What is no id names no request.
async fn load(id: String) -> ApiResult<Found> {
    let Ok(id) = id.parse::<RequestId>() else {
        #[cfg(feature = "ssr")]
        crate::ssr::set_status(404);
        return Err(ApiError::from(Error::not_found("request")));
    };
    let (request, events) = join!(request(id), request_timeline(id));
    Ok((request?, events?))
}

fn take_in(
    live: &Live,
    (asked, (request, events)): (Mark, Found),
) -> (ArcRwSignal<RequestView>, live::Timeline) {
    let about = About::Request(request.id);
    let request = live.adopt_request(asked, request);
    (request, live.open_timeline(about, events))
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
            Memo::new(move |_| name.with(|request| request.terms.name.clone())),
            Memo::new(move |_| state.with(|request| request.state)),
            Signal::derive(move || since.with(|request| request.state_since.as_ms())),
            Memo::new(move |_| waits.with(|request| caller.waits_for(request))),
        )
    };
    view! {
        <div class="page-head">
            <div>
                <p class="crumb"><A href="/requests">"Requests"</A></p>
                <h1>{move || name.get()}</h1>
                <p class="state-line" role="status">
                    <Badge
                        tone=Signal::derive(move || request_tone(state.get()))
                        text=Signal::derive(move || state.get().name().to_owned())
                    />
                    <span>{move || if waits.get() { yours(state.get()) } else { state.get().meaning() }}</span>
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
