//! `/admin/hosts`: what the provider's staff see of the machines below.

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::components::A;
use vimana_model::host::{HostState, HostView};
use vimana_model::unit::MiB;
use vimana_model::{HostId, Timestamp};
use vimana_ui::{Badge, Cell, Clock, EmptyState, Meter, Prose, Table, Tone, Until};

use super::problem::ProblemView;
use super::sentence;
use crate::api::hosts;
use crate::live::{HostEntry, Live};
use crate::session::CurrentSession;

#[component]
pub fn HostsPage() -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let asking = live.clone();
    let list = Resource::new(|| (), move |()| asking.ask(hosts()));
    let reload = live.clone();
    live.on_reset(move || {
        let live = reload.clone();
        spawn_local(async move {
            if let Ok(list) = live.ask(hosts()).await {
                live.open_hosts(list);
            }
        });
    });
    view! {
        <Title text="Hosts"/>
        <Transition fallback=|| view! { <p class="loading">"Loading…"</p> }>
            {move || {
                let live = live.clone();
                Suspend::new(async move {
                    match session.and(list).await {
                        Ok((_, list)) => {
                            live.open_hosts(list);
                            view! { <HostList/> }.into_any()
                        }
                        Err(error) => view! { <ProblemView error=error/> }.into_any(),
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}

#[component]
fn HostList() -> impl IntoView {
    let live = expect_context::<Live>();
    let ids = Memo::new(move |_| live.host_ids());
    view! {
        <div class="page-head">
            <h1>"Hosts"</h1>
        </div>
        <Show
            when=move || !ids.with(Vec::is_empty)
            fallback=|| view! { <EmptyState title="No hosts yet" text="A host appears here when its agent connects for the first time."/> }
        >
            <Rows ids=ids/>
        </Show>
    }
}

#[component]
fn Rows(ids: Memo<Vec<HostId>>) -> impl IntoView {
    let live = expect_context::<Live>();
    view! {
        <Table
            caption="Hosts"
            columns=&["Host", "State", "Hypervisor", "vCPUs", "Memory", "Disk", "VMs"]
        >
            <For
                each=move || ids.get()
                key=|id| *id
                children=move |id| live.host(id).map(|host| view! { <HostRow host=host/> })
            />
        </Table>
    }
}

#[component]
fn HostRow(host: HostEntry) -> impl IntoView {
    let entry = host.clone();
    let host = RwSignal::from(host.view);
    let (id, name) = host.with_untracked(|host| (host.id, host.name.to_string()));
    let of = |name: &str, what: &str| format!("{what} of {name}");
    let (vcpus, memory, disk) = (of(&name, "vCPUs"), of(&name, "Memory"), of(&name, "Disk"));
    let row_name = name.clone();
    view! {
        <tr role="row" data-host=row_name>
            <Cell title="Host">
                <A href=format!("/admin/hosts/{id}") attr:class="name">{name}</A>
                <span class="why">{move || host.with(|host| format!("zone {}", host.zone))}</span>
            </Cell>
            <Cell title="State">
                <HostCondition host=entry/>
            </Cell>
            <Cell title="Hypervisor">
                {move || host.with(|host| format!("{} · {}", host.hypervisor, host.accelerator))}
                <span class="why">{move || host.with(|host| host.accelerator_note.clone())}</span>
            </Cell>
            <Cell title="vCPUs">
                <Meter
                    label=vcpus
                    used=Signal::derive(move || host.with(|host| f64::from(host.used.vcpus)))
                    max=Signal::derive(move || host.with(|host| f64::from(host.capacity.vcpus)))
                    text=Signal::derive(move || host.with(|host| format!("{} of {}", host.used.vcpus, host.capacity.vcpus)))
                />
            </Cell>
            <Cell title="Memory">
                <AmountMeter label=memory host=host used=|host| host.used.memory_mib max=|host| host.capacity.memory_mib/>
            </Cell>
            <Cell title="Disk">
                <AmountMeter label=disk host=host used=|host| host.used.disk_mib max=|host| host.capacity.disk_mib/>
            </Cell>
            <Cell title="VMs">{move || host.with(|host| host.vms)}</Cell>
        </tr>
    }
    .into_any()
}

/// The state of a host, and everything about it that wants attention.
#[component]
pub fn HostCondition(host: HostEntry) -> impl IntoView {
    let HostEntry { view, doubt, .. } = host;
    let condition = {
        let view = view.clone();
        Memo::new(move |_| view.with(|host| (host.state, host.connected)))
    };
    let orphans = {
        let view = view.clone();
        Memo::new(move |_| view.with(|host| host.orphans))
    };
    view! {
        <Badge
            tone=Signal::derive(move || host_tone(condition.get()))
            text=Signal::derive(move || condition.get().0.name().to_owned())
        />
        <span class="why">{move || if condition.get().1 { "connected" } else { "not connected" }}</span>
        {move || doubt.get().map(|reason| view! { <span class="alarm"><Prose text=sentence(&reason)/></span> })}
        <CertificateAlarm host=view/>
        {move || orphans_text(orphans.get()).map(|text| view! { <span class="alarm">{text}</span> })}
    }
}

const fn host_tone(condition: (HostState, bool)) -> Tone {
    match condition {
        (HostState::Enabled, true) => Tone::Good,
        (HostState::Enabled, false) => Tone::Moving,
        (HostState::Doubted | HostState::Unknown, _) => Tone::Bad,
    }
}

/// How long before its end a certificate becomes an alarm: it is renewed long
/// before by itself.
const CLOSE_TO_EXPIRY_MS: i64 = 7 * 24 * 3600 * 1000;

/// The certificate, if somebody should look at it.
#[component]
fn CertificateAlarm(host: ArcRwSignal<HostView>) -> impl IntoView {
    let clock = use_context::<Clock>();
    let certificate =
        Memo::new(move |_| host.with(|host| (host.revoked, host.certificate_expires_at)));
    let close = Memo::new(move |_| {
        let now = clock.and_then(Clock::now_ms);
        let expires = certificate.get().1.map(Timestamp::as_ms);
        now.zip(expires)
            .is_some_and(|(now, at)| at.saturating_sub(now) < CLOSE_TO_EXPIRY_MS)
    });
    move || {
        match certificate.get() {
        (true, _) => Some(view! { <span class="alarm">"Its certificate is revoked."</span> }.into_any()),
        (false, Some(at)) if close.get() => Some(
            view! { <span class="alarm">"Its certificate ends " <Until at_ms=at.as_ms()/> "."</span> }.into_any(),
        ),
        (false, Some(_) | None) => None,
    }
    }
}

fn orphans_text(count: u32) -> Option<String> {
    match count {
        0 => None,
        1 => Some("Holds 1 machine that is not recorded.".to_owned()),
        count => Some(format!("Holds {count} machines that are not recorded.")),
    }
}

#[component]
pub fn AmountMeter(
    label: String,
    host: RwSignal<HostView>,
    used: fn(&HostView) -> MiB,
    max: fn(&HostView) -> MiB,
) -> impl IntoView {
    view! {
        <Meter
            label=label
            used=Signal::derive(move || host.with(|host| length(used(host))))
            max=Signal::derive(move || host.with(|host| length(max(host))))
            text=Signal::derive(move || host.with(|host| format!("{} of {}", used(host), max(host))))
        />
    }
}

#[expect(clippy::cast_precision_loss, reason = "only the length of a bar")]
fn length(amount: MiB) -> f64 {
    amount.0 as f64
}
