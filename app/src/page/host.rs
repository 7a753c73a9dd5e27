//! `/admin/hosts/:id`: one host: what it has, what it holds without a record,
//! what happened to it.

mod orphans;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::host::{HostDatastoreView, HostView, OrphanView};
use vimana_ui::{Meter, Time, Until, memo, part, text, thousandths};

use super::evacuation::{Evacuation, follow};
use super::host_actions::{EvacuateDialog, HostActions, HostDesk};
use super::hosts::{AmountMeter, HostCondition, VcpuMeter};
use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted, id_in_address};
use super::timeline::Timeline;
use crate::api::HostPageData;
use crate::live::{About, HostEntry, Live, Mark, Timeline as Events};
use orphans::Orphans;

lazy_page!(
    /// One host.
    HostPage in admin = page, wants {
        let id = id_in_address();
        move || Wanted::Host(id.get())
    }
);

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    provide_context(HostDesk::new());
    view! {
        <Loaded
            asked=asked
            show=Arc::new(move |_, asked, found| {
                let (host, orphans, events) = take_in(&live, asked, found)?;
                Some(view! { <Machine host=host orphans=orphans events=events/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                take_in(&again, asked, found);
            })
        />
        <EvacuateDialog/>
    }
    .into_any()
}

fn take_in(live: &Live, asked: Mark, found: Found) -> Option<(HostEntry, Vec<OrphanView>, Events)> {
    let Found::Host(found) = found else {
        return None;
    };
    let HostPageData {
        row,
        orphans,
        events,
    } = *found;
    let about = About::Host(row.host.id);
    let host = live.adopt_host(asked, row)?;
    Some((host, orphans, live.open_timeline(about, events)))
}

#[component]
fn Machine(host: HostEntry, orphans: Vec<OrphanView>, events: Events) -> impl IntoView {
    let (id, name) = host
        .view
        .with_untracked(|host| (host.id, host.name.to_string()));
    follow(&host);
    view! {
        <Title text=name.clone()/>
        <div class="page-head">
            <div>
                <p class="crumb"><a href="/admin/hosts">"Hosts"</a></p>
                <h1>{name}</h1>
                <p class="state-line" role="status"><HostCondition host=host.clone()/></p>
            </div>
            <HostActions host=host.view.clone()/>
        </div>
        <div class="vm">
            <div class="vm-main">
                <Evacuation host=host.clone()/>
                <Room host=RwSignal::from(host.view.clone())/>
                <Orphans id=id first=orphans events=events.clone()/>
            </div>
            <div class="vm-side">
                <Facts host=host.view/>
                <Timeline events=events/>
            </div>
        </div>
    }
    .into_any()
}

/// What it has to give and what is taken.
#[component]
fn Room(host: RwSignal<HostView>) -> impl IntoView {
    let places = memo(move || host.with(|host| host.datastores.clone()));
    view! {
        <section class="panel" aria-labelledby="room-title">
            <h2 id="room-title">"Room"</h2>
            <dl class="facts room">
                <div>
                    <dt>"vCPUs"</dt>
                    <dd><VcpuMeter label="vCPUs".to_owned() host=host/></dd>
                </div>
                <div>
                    <dt>"Memory"</dt>
                    <dd><AmountMeter label="Memory".to_owned() host=host used=|host| host.used.memory_mib max=|host| host.capacity.memory_mib/></dd>
                </div>
                <div>
                    <dt>"Disk"</dt>
                    <dd><AmountMeter label="Disk".to_owned() host=host used=|host| host.used.disk_mib max=|host| host.capacity.disk_mib/></dd>
                </div>
                {part(move || Some(places.get().into_iter().map(|place| {
                    let HostDatastoreView { name, capacity_mib, used_mib, present, .. } = place;
                    let part = thousandths(used_mib.0, capacity_mib.0);
                    let away = if present { "" } else { "; the host does not reach it" };
                    let text = format!("{used_mib} of {capacity_mib}{away}");
                    view! {
                        <div>
                            <dt>{format!("Datastore {name}")}</dt>
                            <dd>
                                <Meter
                                    label=format!("Datastore {name}")
                                    used=Signal::derive(move || part)
                                    text=Signal::derive(move || text.clone())
                                />
                            </dd>
                        </div>
                    }
                    .into_any()
                }).collect::<Vec<_>>().into_any()))}
            </dl>
        </section>
    }
    .into_any()
}

#[component]
fn Facts(host: ArcRwSignal<HostView>) -> impl IntoView {
    let fixed = host.get_untracked();
    let fact = |get: fn(&HostView) -> String| {
        let host = host.clone();
        let shown = memo(move || host.with(get));
        text(move || shown.get()).into_any()
    };
    let row = |title: &'static str, value: AnyView| {
        view! {
            <div>
                <dt>{title}</dt>
                <dd>{value}</dd>
            </div>
        }
    };
    let certificate = {
        let host = host.clone();
        memo(move || host.with(|host| (host.revoked, host.certificate_expires_at)))
    };
    let certificate = part(move || {
        Some(match certificate.get() {
            (true, _) => "revoked".into_any(),
            (false, Some(at)) => {
                view! { "good, renewed before it ends " <Until at_ms=at.as_ms()/> }.into_any()
            }
            (false, None) => "none: it has not joined".into_any(),
        })
    });
    let since = {
        let host = host.clone();
        memo(move || host.with(|host| host.connected_since.map(|at| at.as_ms())))
    };
    let since = part(move || {
        Some(match since.get() {
            Some(at) => view! { "since " <Time at_ms=at/> }.into_any(),
            None => "no".into_any(),
        })
    });
    view! {
        <section class="panel" aria-labelledby="facts-title">
            <h2 id="facts-title">"Facts"</h2>
            <dl class="facts">
                {row("Zone", fixed.zone.to_string().into_any())}
                {row("VMs", fact(|host| host.vms.to_string()))}
                {row("Hypervisor", fact(|host| host.hypervisor.clone()))}
                {row("Accelerator", fact(|host| format!("{}: {}", host.accelerator, host.accelerator_note)))}
                {row("Hot resize", fact(|host| {
                    if host.hot_resize { "yes: vCPUs and memory of running machines can grow" } else { "only disks of running machines grow" }.to_owned()
                }))}
                {row("Connected", since.into_any())}
                {row("Certificate", certificate.into_any())}
                {row("Agent", fact(|host| host.agent_version.clone()))}
                {row("Id", view! { <code class="long">{fixed.id.to_string()}</code> }.into_any())}
            </dl>
        </section>
    }
    .into_any()
}
