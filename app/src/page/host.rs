//! `/admin/hosts/:id`: one host: what it has, what it holds without a record,
//! what happened to it.

mod orphans;

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::components::A;
use leptos_router::hooks::use_params_map;
use vimana_model::host::{HostView, OrphanView};
use vimana_model::{Error, HostId};
use vimana_ui::{Meter, Time, Until};

use super::hosts::{AmountMeter, HostCondition};
use super::problem::ProblemView;
use super::timeline::Timeline;
use crate::api::{ApiError, ApiResult, HostPageData, host};
use crate::live::{About, HostEntry, Live, Mark, Timeline as Events};
use crate::session::CurrentSession;
use orphans::Orphans;

#[component]
pub fn HostPage() -> impl IntoView {
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
                            take_in(&live, found)
                                .map(|(host, orphans, events)| view! { <Machine host=host orphans=orphans events=events/> })
                                .into_any()
                        }
                        Err(error) => view! { <ProblemView error=error/> }.into_any(),
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}

/// Reads everything about the host. What is no id names no host.
async fn load(id: String) -> ApiResult<HostPageData> {
    let Ok(id) = id.parse::<HostId>() else {
        #[cfg(feature = "ssr")]
        crate::ssr::set_status(404);
        return Err(ApiError::from(Error::not_found("host")));
    };
    host(id).await
}

fn take_in(
    live: &Live,
    (asked, found): (Mark, HostPageData),
) -> Option<(HostEntry, Vec<OrphanView>, Events)> {
    let HostPageData {
        row,
        orphans,
        events,
    } = found;
    let about = About::Host(row.host.id);
    let host = live.adopt_host(asked, row)?;
    Some((host, orphans, live.open_timeline(about, events)))
}

#[component]
fn Machine(host: HostEntry, orphans: Vec<OrphanView>, events: Events) -> impl IntoView {
    let (id, name) = host
        .view
        .with_untracked(|host| (host.id, host.name.to_string()));
    view! {
        <Title text=name.clone()/>
        <div class="page-head">
            <div>
                <p class="crumb"><A href="/admin/hosts">"Hosts"</A></p>
                <h1>{name}</h1>
                <p class="state-line" role="status"><HostCondition host=host.clone()/></p>
            </div>
        </div>
        <div class="vm">
            <div class="vm-main">
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
    view! {
        <section class="panel" aria-labelledby="room-title">
            <h2 id="room-title">"Room"</h2>
            <dl class="facts room">
                <div>
                    <dt>"vCPUs"</dt>
                    <dd>
                        <Meter
                            label="vCPUs"
                            used=Signal::derive(move || host.with(|host| f64::from(host.used.vcpus)))
                            max=Signal::derive(move || host.with(|host| f64::from(host.capacity.vcpus)))
                            text=Signal::derive(move || host.with(|host| format!("{} of {}", host.used.vcpus, host.capacity.vcpus)))
                        />
                    </dd>
                </div>
                <div>
                    <dt>"Memory"</dt>
                    <dd><AmountMeter label="Memory".to_owned() host=host used=|host| host.used.memory_mib max=|host| host.capacity.memory_mib/></dd>
                </div>
                <div>
                    <dt>"Disk"</dt>
                    <dd><AmountMeter label="Disk".to_owned() host=host used=|host| host.used.disk_mib max=|host| host.capacity.disk_mib/></dd>
                </div>
            </dl>
        </section>
    }
    .into_any()
}

#[component]
fn Facts(host: ArcRwSignal<HostView>) -> impl IntoView {
    let fixed = host.get_untracked();
    let text = |get: fn(&HostView) -> String| {
        let host = host.clone();
        let shown = Memo::new(move |_| host.with(get));
        (move || shown.get()).into_any()
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
        Memo::new(move |_| host.with(|host| (host.revoked, host.certificate_expires_at)))
    };
    let certificate = move || match certificate.get() {
        (true, _) => "revoked".into_any(),
        (false, Some(at)) => {
            view! { "good, renewed before it ends " <Until at_ms=at.as_ms()/> }.into_any()
        }
        (false, None) => "none: it has not joined".into_any(),
    };
    let since = {
        let host = host.clone();
        Memo::new(move |_| host.with(|host| host.connected_since.map(|at| at.as_ms())))
    };
    let since = move || match since.get() {
        Some(at) => view! { "since " <Time at_ms=at/> }.into_any(),
        None => "no".into_any(),
    };
    view! {
        <section class="panel" aria-labelledby="facts-title">
            <h2 id="facts-title">"Facts"</h2>
            <dl class="facts">
                {row("Zone", fixed.zone.to_string().into_any())}
                {row("VMs", text(|host| host.vms.to_string()))}
                {row("Hypervisor", text(|host| host.hypervisor.clone()))}
                {row("Accelerator", text(|host| format!("{}: {}", host.accelerator, host.accelerator_note)))}
                {row("Hot resize", text(|host| {
                    if host.hot_resize { "yes: running machines can grow" } else { "no: machines are resized while off" }.to_owned()
                }))}
                {row("Connected", since.into_any())}
                {row("Certificate", certificate.into_any())}
                {row("Agent", text(|host| host.agent_version.clone()))}
                {row("Id", view! { <code class="long">{fixed.id.to_string()}</code> }.into_any())}
            </dl>
        </section>
    }
    .into_any()
}
