//! `/vms?show=active|done|all&q=TEXT`: the list everybody starts from.

mod row;

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::NavigateOptions;
use leptos_router::components::A;
use leptos_router::hooks::{use_navigate, use_query_map};
use vimana_model::VmId;
use vimana_ui::{EmptyState, Icon, IconName, Table};

use super::problem::ProblemView;
use crate::api::{Show as Which, vms};
use crate::live::Live;
use crate::session::{Caller, CurrentSession};
use row::VmRow;

/// Rows drawn at once; more on request.
const PAGE_ROWS: usize = 200;

#[component]
pub fn VmsPage() -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let query = use_query_map();
    let which = Memo::new(move |_| query.with(|query| Which::from_query(query.get_str("show"))));
    let asking = live.clone();
    let list = Resource::new(move || which.get(), move |which| asking.ask(vms(which)));
    let reload = live.clone();
    live.on_reset(move || {
        let live = reload.clone();
        spawn_local(async move {
            // A failure shows as the stale mark; the next reset tries again.
            let Some(which) = which.try_get_untracked() else {
                return;
            };
            if let Ok(list) = live.ask(vms(which)).await {
                live.take_list(which, list);
            }
        });
    });
    view! {
        <Title text="My VMs"/>
        <div class="page-head">
            <h1>"My VMs"</h1>
            <A href="/vms/new" attr:class="button" attr:data-kind="primary">
                <Icon name=IconName::Plus/>
                <span>"New VM"</span>
            </A>
        </div>
        <Toolbar which=which/>
        <Transition fallback=|| view! { <p class="loading">"Loading…"</p> }>
            {move || {
                let live = live.clone();
                Suspend::new(async move {
                    match session.and(list).await {
                        Ok((caller, list)) => {
                            provide_context(caller);
                            let ids = live.open_list(which.get_untracked(), list);
                            view! { <VmList ids=ids which=which/> }.into_any()
                        }
                        Err(error) => view! { <ProblemView error=error/> }.into_any(),
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}

/// Which VMs, and those whose name holds a text; both live in the address.
#[component]
fn Toolbar(which: Memo<Which>) -> impl IntoView {
    let query = use_query_map();
    let navigate = use_navigate();
    let text = move || query.with(|query| query.get("q").unwrap_or_default());
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
                                href=move || address(one, &text())
                                aria-current=move || (which.get() == one).then_some("true")
                            >
                                {one.title()}
                            </a>
                        }
                    })
                    .collect_view()}
            </nav>
            <label class="search">
                <Icon name=IconName::Search/>
                <span class="unseen">"Search by name"</span>
                <input r#type="search" class="input" placeholder="Name" autocomplete="off" value=text on:input=search/>
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
        Memo::new(move |_| ids.with(|ids| !ids.is_empty()))
    };
    let names = live.clone();
    let found = Memo::new(move |_| {
        let text = query.with(|query| query.get("q").unwrap_or_default().to_lowercase());
        let mut ids = ids.get();
        if !text.is_empty() {
            ids.retain(|id| {
                names.vm(*id).is_some_and(|vm| {
                    vm.with_untracked(|vm| vm.name.as_str().to_lowercase().contains(&text))
                })
            });
        }
        ids
    });
    let shown = Memo::new(move |_| {
        found.with(|found| found.iter().take(most.get()).copied().collect::<Vec<_>>())
    });
    let hidden = move || found.with(Vec::len).saturating_sub(most.get());
    view! {
        <Show when=move || any.get() fallback=move || view! { <NothingYet which=which/> }>
            <Show
                when=move || !found.with(Vec::is_empty)
                fallback=|| view! { <EmptyState title="No such VM" text="No name holds this text."/> }
            >
                <Rows ids=shown/>
            </Show>
            <Show when=move || { hidden() > 0 }>
                <p class="more">
                    <button r#type="button" class="button" data-kind="plain" on:click=move |_| most.update(|most| *most += PAGE_ROWS)>
                        {move || format!("Show {} more", hidden().min(PAGE_ROWS))}
                    </button>
                </p>
            </Show>
        </Show>
    }
}

#[component]
fn Rows(ids: Memo<Vec<VmId>>) -> impl IntoView {
    let live = expect_context::<Live>();
    view! {
        <Table caption="My VMs" columns=&["Name", "State", "Flavor", "Image", "Host", "Created", "Actions"]>
            <For
                each=move || ids.get()
                key=|id| *id
                children=move |id| live.vm(id).map(|vm| view! { <VmRow vm=vm/> })
            />
        </Table>
    }
}

#[component]
fn NothingYet(which: Memo<Which>) -> impl IntoView {
    let may_create = expect_context::<Caller>().may_create();
    move || {
        match which.get() {
        Which::Done => view! {
            <EmptyState title="Nothing is done yet" text="A VM that was shut down or deleted is kept here as a record."/>
        }
        .into_any(),
        Which::Active | Which::All => view! {
            <EmptyState title="No VMs yet" text="A VM runs within seconds of asking for one.">
                {may_create.then(|| view! {
                    <A href="/vms/new" attr:class="button" attr:data-kind="primary">
                        <Icon name=IconName::Plus/>
                        <span>"Create a VM"</span>
                    </A>
                })}
            </EmptyState>
        }
        .into_any(),
    }
    }
}
