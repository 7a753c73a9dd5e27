//! `/requests?state=STATE|open|all`: what was asked for under the manual
//! life-cycle. What waits for the one who looks stands first.

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::hooks::use_query_map;
use vimana_model::RequestId;
use vimana_model::request::RequestView;
use vimana_ui::{
    Badge, Cell, Each, EmptyState, Icon, IconName, Item, Prose, Table, Time, When, flag, memo,
    part, text,
};

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use super::request::first_line;
use super::request_tone;
use crate::api::RequestShow;
use crate::live::Live;
use crate::session::Caller;

lazy_page!(
    /// The list of requests.
    RequestsPage in requests = page, wants {
        let show = chosen();
        move || Wanted::Requests(show.get())
    }
);

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    let show = chosen();
    view! {
        <Title text="Requests"/>
        <Loaded
            asked=asked
            show=Arc::new(move |caller, asked, found| {
                let Found::Requests(list) = found else {
                    return None;
                };
                let ids = live.open_requests(show.get_untracked(), (asked, list));
                Some(view! { <Page ids=ids show=show caller=caller/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                if let (Found::Requests(list), Some(show)) = (found, show.try_get_untracked()) {
                    again.take_requests(show, (asked, list));
                }
            })
        />
    }
    .into_any()
}

/// Which of them the address asks for.
fn chosen() -> Memo<RequestShow> {
    let query = use_query_map();
    memo(move || query.with(|query| RequestShow::from_query(query.get_str("state"))))
}

#[component]
fn Page(
    ids: ArcRwSignal<Vec<RequestId>>,
    show: Memo<RequestShow>,
    caller: Caller,
) -> impl IntoView {
    view! {
        <div class="page-head">
            <h1>"Requests"</h1>
            <NewRequest/>
        </div>
        <Choices show=show/>
        <RequestList ids=ids show=show caller=caller/>
    }
    .into_any()
}

/// The way to the form, for those who may send it.
#[component]
fn NewRequest() -> impl IntoView {
    let caller = expect_context::<Caller>();
    (caller.asks_first() && caller.may_create()).then(|| {
        view! {
            <a href="/vms/new" class="button" data-kind="primary">
                <Icon name=IconName::Plus/>
                <span>{caller.new_title()}</span>
            </a>
        }
    })
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
                <a class="segment" href=address aria-current=flag(move || show.get() == one)>
                    {one.title()}
                </a>
            }
        })
        .map(IntoAny::into_any)
        .collect::<Vec<_>>();
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
    let split = memo(move || {
        let waits = |id: &RequestId| {
            let request = live.request(*id);
            request.is_some_and(|request| request.with(|request| caller.waits_for(request)))
        };
        ids.get().into_iter().partition::<Vec<_>, _>(waits)
    });
    let waiting = memo(move || split.with(|(waiting, _)| waiting.clone()));
    let others = memo(move || split.with(|(_, others)| others.clone()));
    let any = move || !waiting.with(Vec::is_empty) || !others.with(Vec::is_empty);
    view! {
        <When is=Signal::derive(any) otherwise=move || view! { <NothingYet show=show/> }>
            <When is=Signal::derive(move || !waiting.with(Vec::is_empty))>
                <section class="stack" aria-labelledby="waiting-title">
                    <h2 id="waiting-title">"Waiting for you"</h2>
                    <Rows ids=waiting caption="Requests that wait for you"/>
                </section>
            </When>
            <When is=Signal::derive(move || !others.with(Vec::is_empty))>
                <section class="stack" aria-labelledby="others-title">
                    <h2 id="others-title" class=text(move || if waiting.with(Vec::is_empty) { "unseen" } else { "" })>"All others"</h2>
                    <Rows ids=others caption="Requests"/>
                </section>
            </When>
        </When>
    }
    .into_any()
}

#[component]
fn NothingYet(show: Memo<RequestShow>) -> impl IntoView {
    part(move || {
        Some(match show.get() {
            RequestShow::Open | RequestShow::All => view! {
                <EmptyState
                    title="No requests"
                    text="Here machines are asked for: a manager decides, and what is no longer needed is given back."
                >
                    <NewRequest/>
                </EmptyState>
            }
            .into_any(),
            RequestShow::In(state) => view! {
                <EmptyState title=format!("None is in {state}") text=format!("That state means: {}.", state.meaning())/>
            }
            .into_any(),
        })
    })
}

#[component]
fn Rows(ids: Memo<Vec<RequestId>>, caption: &'static str) -> impl IntoView {
    let live = expect_context::<Live>();
    let rows = Signal::derive(move || {
        let row = |id: RequestId| {
            let live = live.clone();
            Item::new(id, move || {
                live.request(id)
                    .map(|request| view! { <Row request=request/> })
            })
        };
        ids.get().into_iter().map(row).collect()
    });
    view! {
        <Table caption=caption columns=&["Name", "State", "Purpose", "Requester", "Size", "Asked"]>
            <Each items=rows/>
        </Table>
    }
}

#[component]
fn Row(request: ArcRwSignal<RequestView>) -> impl IntoView {
    let fixed = request.get_untracked();
    let of = |get: fn(&RequestView) -> String| {
        let request = request.clone();
        memo(move || request.with(get))
    };
    let name = of(|request| request.terms.name.clone());
    let size = of(|request| format!("{} · {}", request.terms.flavor, request.terms.image));
    let purpose = fixed.remarks.first().map(|remark| first_line(&remark.text));
    let state = {
        let request = request.clone();
        memo(move || request.with(|request| request.state))
    };
    let since = {
        let request = request.clone();
        Signal::derive(move || request.with(|request| request.state_since.as_ms()))
    };
    let row_name = fixed.terms.name;
    view! {
        <tr role="row" data-over=flag(move || state.get().is_final()) data-request=row_name>
            <Cell title="Name">
                <a href=format!("/requests/{}", fixed.id) class="name">{text(move || name.get())}</a>
            </Cell>
            <Cell title="State">
                <Badge
                    tone=Signal::derive(move || request_tone(state.get()))
                    text=Signal::derive(move || state.get().name().to_owned())
                />
                <span class="why">{text(move || state.get().meaning())} ", " <Time at_ms=since/></span>
            </Cell>
            <Cell title="Purpose">
                <span class="purpose"><Prose text=purpose.unwrap_or_default()/></span>
            </Cell>
            <Cell title="Requester">{fixed.requester.to_string()}</Cell>
            <Cell title="Size">{text(move || size.get())}</Cell>
            <Cell title="Asked"><Time at_ms=fixed.created_at.as_ms()/></Cell>
        </tr>
    }
    .into_any()
}
