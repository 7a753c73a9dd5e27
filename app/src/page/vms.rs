//! `/vms?show=active|done|all&q=TEXT`: the list everybody starts from.

mod dock;
mod row;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::NavigateOptions;
use leptos_router::hooks::{use_navigate, use_query_map};
use vimana_model::VmId;
use vimana_ui::{
    Each, EmptyState, Icon, IconName, Item, Table, When, flag, memo, part, press, text,
};

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use crate::api::Show as Which;
use crate::live::Live;
use crate::session::Caller;
use dock::{Dock, Drag};
use row::VmRow;

/// Rows drawn at once; more on request.
const PAGE_ROWS: usize = 200;

lazy_page!(
    /// The list of VMs.
    VmsPage in vms = page, wants {
        let which = which();
        move || Wanted::Vms(which.get())
    }
);

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    let which = which();
    view! {
        <Title text="My VMs"/>
        <Loaded
            asked=asked
            show=Arc::new(move |caller, asked, found| {
                let Found::Vms(list) = found else {
                    return None;
                };
                let ids = live.open_list(which.get_untracked(), (asked, list));
                Some(view! { <Page caller=caller ids=ids which=which/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                if let (Found::Vms(list), Some(which)) = (found, which.try_get_untracked()) {
                    again.take_list(which, (asked, list));
                }
            })
        />
    }
    .into_any()
}

/// Which of them the address asks for.
fn which() -> Memo<Which> {
    let query = use_query_map();
    memo(move || query.with(|query| Which::from_query(query.get_str("show"))))
}

#[component]
fn Page(caller: Caller, ids: ArcRwSignal<Vec<VmId>>, which: Memo<Which>) -> impl IntoView {
    view! {
        <div class="page-head">
            <h1>"My VMs"</h1>
            {caller.may_create().then(|| view! {
                <a href="/vms/new" class="button" data-kind="primary">
                    <Icon name=IconName::Plus/>
                    <span>{caller.new_title()}</span>
                </a>
            })}
        </div>
        <Toolbar which=which/>
        <VmList ids=ids which=which/>
    }
    .into_any()
}

/// Which VMs, and those whose name holds a text; both live in the address.
#[component]
fn Toolbar(which: Memo<Which>) -> impl IntoView {
    let query = use_query_map();
    let navigate = use_navigate();
    let searched = move || query.with(|query| query.get("q").unwrap_or_default());
    let address = move |which: Which, text: &str| {
        let mut params = leptos_router::params::ParamsMap::new();
        if which != Which::default() {
            params.insert("show", which.slug().to_owned());
        }
        if !text.is_empty() {
            params.insert("q", text.to_owned());
        }
        format!("/vms{}", params.to_query_string())
    };
    let search = move |event| {
        let options = NavigateOptions {
            replace: true,
            scroll: false,
            ..NavigateOptions::default()
        };
        navigate(
            &address(which.get_untracked(), &event_target_value(&event)),
            options,
        );
    };
    view! {
        <div class="toolbar">
            <nav class="segments" aria-label="Which VMs">
                {Which::ALL
                    .into_iter()
                    .map(|one| {
                        view! {
                            <a
                                class="segment"
                                href=text(move || address(one, &searched()))
                                aria-current=flag(move || which.get() == one)
                            >
                                {one.title()}
                            </a>
                        }
                    })
                    .map(IntoAny::into_any).collect::<Vec<_>>()}
            </nav>
            <label class="search">
                <Icon name=IconName::Search/>
                <span class="unseen">"Search by name"</span>
                <input r#type="search" class="input" placeholder="Name" autocomplete="off" value=text(searched) on:input=search/>
            </label>
        </div>
    }
}

#[component]
fn VmList(ids: ArcRwSignal<Vec<VmId>>, which: Memo<Which>) -> impl IntoView {
    let live = expect_context::<Live>();
    let query = use_query_map();
    let most = RwSignal::new(PAGE_ROWS);
    let any = {
        let ids = ids.clone();
        memo(move || ids.with(|ids| !ids.is_empty()))
    };
    let names = live.clone();
    let found = memo(move || {
        let text = query.with(|query| query.get("q").unwrap_or_default().to_ascii_lowercase());
        let mut ids = ids.get();
        if !text.is_empty() {
            ids.retain(|id| {
                names.vm(*id).is_some_and(|vm| {
                    vm.with_untracked(|vm| vm.name.as_str().to_ascii_lowercase().contains(&text))
                })
            });
        }
        ids
    });
    let shown = memo(move || {
        found.with(|found| found.iter().take(most.get()).copied().collect::<Vec<_>>())
    });
    let hidden = move || found.with(Vec::len).saturating_sub(most.get());
    view! {
        <When is=any otherwise=move || view! { <NothingYet which=which/> }>
            <When
                is=Signal::derive(move || !found.with(Vec::is_empty))
                otherwise=|| view! { <EmptyState title="No such VM" text="No name holds this text."/> }
            >
                <Rows ids=shown/>
            </When>
            <When is=Signal::derive(move || hidden() > 0)>
                <p class="more">
                    <button r#type="button" class="button" data-kind="plain" on:click=press(move || most.update(|most| *most += PAGE_ROWS))>
                        {text(move || format!("Show {} more", hidden().min(PAGE_ROWS)))}
                    </button>
                </p>
            </When>
        </When>
    }
}

#[component]
fn Rows(ids: Memo<Vec<VmId>>) -> impl IntoView {
    let live = expect_context::<Live>();
    let drag = Drag::provide();
    let rows = Signal::derive(move || {
        let row = |id: VmId| {
            let live = live.clone();
            Item::new(id, move || live.vm(id).map(|vm| view! { <VmRow vm=vm/> }))
        };
        ids.get().into_iter().map(row).collect()
    });
    view! {
        <Table caption="My VMs" columns=&["Name", "State", "Flavor", "Image", "Host", "Created", "Actions"]>
            <Each items=rows/>
        </Table>
        <Dock drag=drag/>
    }
}

#[component]
fn NothingYet(which: Memo<Which>) -> impl IntoView {
    let caller = expect_context::<Caller>();
    part(move || {
        Some(match which.get() {
            Which::Done => view! {
                <EmptyState title="Nothing is done yet" text="A VM that was shut down or deleted is kept here as a record."/>
            }
            .into_any(),
            Which::Active | Which::All => {
                let caller = caller.clone();
                let text = if caller.asks_first() {
                    "A VM is made as soon as a manager has approved the request for it."
                } else {
                    "A VM runs within seconds of asking for one."
                };
                view! {
                    <EmptyState title="No VMs yet" text=text>
                        {caller.may_create().then(|| view! {
                            <a href="/vms/new" class="button" data-kind="primary">
                                <Icon name=IconName::Plus/>
                                <span>{caller.new_title()}</span>
                            </a>
                        })}
                    </EmptyState>
                }
                .into_any()
            }
        })
    })
}
