//! Why it waits, and why it failed: the two panels nobody should have to look
//! for.

use leptos::prelude::*;
use vimana_model::pending::{Filter, Rejection};
use vimana_model::vm::VmView;
use vimana_ui::{Cell, Icon, IconName, Prose, Table, Time, memo, part};

use crate::page::sentence;

#[component]
pub fn PendingPanel(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let pending = memo(move || vm.with(|vm| vm.pending.clone()));
    part(move || {
        pending.get().map(|pending| {
            let looked = pending.explained_at.map(|at| at.as_ms());
            let explanation = pending.explanation.unwrap_or_default();
            let considered = explanation.considered;
            view! {
                <section class="panel" data-tone="moving" aria-labelledby="pending-title">
                    <h2 id="pending-title"><Icon name=IconName::Clock/> "Why it is pending"</h2>
                    <p><Prose text=sentence(&pending.message)/></p>
                    {(!explanation.rejections.is_empty()).then(|| view! { <Rejections rejections=explanation.rejections/> })}
                    {looked.map(|at| view! {
                        <p class="faint">
                            "The scheduler looked at " {hosts(considered)} " " <Time at_ms=at/>
                        </p>
                    }.into_any())}
                </section>
            }
        })
    })
}

#[component]
fn Rejections(rejections: Vec<Rejection>) -> impl IntoView {
    let rows = rejections
        .into_iter()
        .map(|rejection| {
            let more = u64::from(rejection.count)
                .saturating_sub(u64::try_from(rejection.hosts.len()).unwrap_or(u64::MAX));
            let names = rejection.hosts.join(", ");
            view! {
                <tr role="row">
                    <Cell title="Condition">{condition(rejection.filter)}</Cell>
                    <Cell title="Reason"><Prose text=sentence(&rejection.reason)/></Cell>
                    <Cell title="Hosts">
                        {hosts(rejection.count)}
                        <span class="why">{names} {(more > 0).then(|| format!(" and {more} more"))}</span>
                    </Cell>
                </tr>
            }
        })
        .map(IntoAny::into_any).collect::<Vec<_>>();
    view! {
        <Table caption="Which condition ruled out which hosts" columns=&["Condition", "Reason", "Hosts"]>
            {rows}
        </Table>
    }
}

const fn condition(filter: Filter) -> &'static str {
    match filter {
        Filter::Connected => "Connected",
        Filter::Cordoned => "Not cordoned",
        Filter::Draining => "Not drained",
        Filter::Maintenance => "Not in maintenance",
        Filter::Enabled => "Enabled",
        Filter::Vcpus => "vCPUs",
        Filter::Memory => "Memory",
        Filter::Datastore => "Datastore",
        Filter::Disk => "Disk",
    }
}

fn hosts(count: u32) -> String {
    match count {
        1 => "1 host".to_owned(),
        count => format!("{count} hosts"),
    }
}

#[component]
pub fn FailurePanel(vm: ArcRwSignal<VmView>) -> impl IntoView {
    let failure = memo(move || vm.with(|vm| vm.failure.clone()));
    part(move || {
        failure.get().map(|failure| {
            view! {
                <section class="panel" data-tone="bad" role="alert" aria-labelledby="failure-title">
                    <h2 id="failure-title">
                        <Icon name=IconName::Warning/> {format!("Failed during {}", failure.during)}
                    </h2>
                    <p><Prose text=sentence(&failure.reason)/></p>
                    <p class="faint">"Retry goes on from where it broke; delete gives everything back. The reason stays in the timeline."</p>
                </section>
            }
        })
    })
}
