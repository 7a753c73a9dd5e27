//! `/requests?state=STATE|open|all`: what was asked for under the manual
//! life-cycle. What waits for the one who looks stands first.

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::components::A;
use leptos_router::hooks::use_query_map;
use vimana_model::RequestId;
use vimana_model::request::RequestView;
use vimana_ui::{Badge, Cell, EmptyState, Icon, IconName, Prose, Table, Time};

use super::problem::ProblemView;
use super::request::first_line;
use super::request_tone;
use crate::api::{RequestShow, requests};
use crate::live::Live;
use crate::session::{Caller, CurrentSession};

#[component]
pub fn RequestsPage() -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let query = use_query_map();
    let show =
        Memo::new(move |_| query.with(|query| RequestShow::from_query(query.get_str("state"))));
    let asking = live.clone();
    let list = Resource::new(move || show.get(), move |show| asking.ask(requests(show)));
    let reload = live.clone();
    live.on_reset(move || {
        let live = reload.clone();
        spawn_local(async move {
            let Some(show) = show.try_get_untracked() else {
                return;
            };
            if let Ok(list) = live.ask(requests(show)).await {
                live.take_requests(show, list);
            }
        });
    });
    view! {
        <Title text="Requests"/>
        <div class="page-head">
            <h1>"Requests"</h1>
            <A href="/vms/new" attr:class="button" attr:data-kind="primary">
                <Icon name=IconName::Plus/>
                <span>"New request"</span>
            </A>
        </div>
        <Choices show=show/>
        <Transition fallback=|| view! { <p class="loading">"Loading…"</p> }>
            {move || {
                let live = live.clone();
                Suspend::new(async move {
                    match session.and(list).await {
                        Ok((caller, list)) => {
                            let ids = live.open_requests(show.get_untracked(), list);
                            view! { <RequestList ids=ids show=show caller=caller/> }.into_any()
                        }
                        Err(error) => view! { <ProblemView error=error/> }.into_any(),
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}

/// Which requests; the choice lives in the address.
#[component]
fn Choices(show: Memo<RequestShow>) -> impl IntoView {
    let choices = RequestShow::choices()
        .into_iter()
        .map(|one| {
            let address = if one == RequestShow::default() {
                "/requests".to_owned()
            } else {
                format!("/requests?state={}", one.slug())
            };
            view! {
                <a class="segment" href=address aria-current=move || (show.get() == one).then_some("true")>
                    {one.title()}
                </a>
            }
        })
        .collect_view();
    view! {
        <div class="toolbar">
            <nav class="segments" aria-label="Which requests">{choices}</nav>
        </div>
    }
}

#[component]
fn RequestList(
    ids: ArcRwSignal<Vec<RequestId>>,
    show: Memo<RequestShow>,
    caller: Caller,
) -> impl IntoView {
    let live = expect_context::<Live>();
    // The rows that wait for the reader and the others, both newest first.
    let split = Memo::new(move |_| {
        let waits = |id: &RequestId| {
            let request = live.request(*id);
            request.is_some_and(|request| request.with(|request| caller.waits_for(request)))
        };
        ids.get().into_iter().partition::<Vec<_>, _>(waits)
    });
    let waiting = Memo::new(move |_| split.with(|(waiting, _)| waiting.clone()));
    let others = Memo::new(move |_| split.with(|(_, others)| others.clone()));
    let none = move || waiting.with(Vec::is_empty) && others.with(Vec::is_empty);
    view! {
        <Show when=move || !none() fallback=move || view! { <NothingYet show=show/> }>
            <Show when=move || !waiting.with(Vec::is_empty)>
                <section class="stack" aria-labelledby="waiting-title">
                    <h2 id="waiting-title">"Waiting for you"</h2>
                    <Rows ids=waiting caption="Requests that wait for you"/>
                </section>
            </Show>
            <Show when=move || !others.with(Vec::is_empty)>
                <section class="stack" aria-labelledby="others-title">
                    <h2 id="others-title" class:unseen=move || waiting.with(Vec::is_empty)>"All others"</h2>
                    <Rows ids=others caption="Requests"/>
                </section>
            </Show>
        </Show>
    }
    .into_any()
}

#[component]
fn NothingYet(show: Memo<RequestShow>) -> impl IntoView {
    move || {
        match show.get() {
        RequestShow::Open | RequestShow::All => view! {
            <EmptyState title="No requests" text="Here machines are asked for: a manager decides, and what is no longer needed is given back.">
                <A href="/vms/new" attr:class="button" attr:data-kind="primary">
                    <Icon name=IconName::Plus/>
                    <span>"New request"</span>
                </A>
            </EmptyState>
        }
        .into_any(),
        RequestShow::In(state) => view! {
            <EmptyState title=format!("None is in {state}") text=format!("That state means: {}.", state.meaning())/>
        }
        .into_any(),
    }
    }
}

#[component]
fn Rows(ids: Memo<Vec<RequestId>>, caption: &'static str) -> impl IntoView {
    let live = expect_context::<Live>();
    view! {
        <Table caption=caption columns=&["Name", "State", "Purpose", "Requester", "Size", "Asked"]>
            <For
                each=move || ids.get()
                key=|id| *id
                children=move |id| live.request(id).map(|request| view! { <Row request=request/> })
            />
        </Table>
    }
}

#[component]
fn Row(request: ArcRwSignal<RequestView>) -> impl IntoView {
    let fixed = request.get_untracked();
    let memo = |get: fn(&RequestView) -> String| {
        let request = request.clone();
        Memo::new(move |_| request.with(get))
    };
    let name = memo(|request| request.terms.name.clone());
    let size = memo(|request| format!("{} · {}", request.terms.flavor, request.terms.image));
    let purpose = fixed.remarks.first().map(|remark| first_line(&remark.text));
    let state = {
        let request = request.clone();
        Memo::new(move |_| request.with(|request| request.state))
    };
    let since = {
        let request = request.clone();
        Signal::derive(move || request.with(|request| request.state_since.as_ms()))
    };
    let row_name = fixed.terms.name;
    view! {
        <tr role="row" data-over=move || state.get().is_final().then_some("true") data-request=row_name>
            <Cell title="Name">
                <A href=format!("/requests/{}", fixed.id) attr:class="name">{move || name.get()}</A>
            </Cell>
            <Cell title="State">
                <Badge
                    tone=Signal::derive(move || request_tone(state.get()))
                    text=Signal::derive(move || state.get().name().to_owned())
                />
                <span class="why">{move || state.get().meaning()} ", " <Time at_ms=since/></span>
            </Cell>
            <Cell title="Purpose">
                <span class="purpose"><Prose text=purpose.unwrap_or_default()/></span>
            </Cell>
            <Cell title="Requester">{fixed.requester.to_string()}</Cell>
            <Cell title="Size">{move || size.get()}</Cell>
            <Cell title="Asked"><Time at_ms=fixed.created_at.as_ms()/></Cell>
        </tr>
    }
    .into_any()
}
