//! `/admin/hosts`: what the provider's staff see of the machines below.

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::host::{DesiredState, HostState, HostView};
use vimana_model::unit::MiB;
use vimana_model::{HostId, Timestamp};
use vimana_ui::{
    Badge, Cell, Clock, Each, EmptyState, Item, Meter, Prose, Table, Tone, Until, When, memo, part,
    text, thousandths,
};

use super::evacuation::{Evacuation, follow, moved};
use super::host_actions::{EvacuateDialog, HostActions, HostDesk};
use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use super::sentence;
use crate::live::{HostEntry, Live};
use crate::session::Caller;

lazy_page!(
    /// The list of hosts.
    HostsPage in admin = page, wants || Wanted::Hosts
);

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    provide_context(HostDesk::new());
    view! {
        <Title text="Hosts"/>
        <Loaded
            asked=asked
            show=Arc::new(move |_, asked, found| {
                let Found::Hosts(list) = found else {
                    return None;
                };
                live.open_hosts((asked, list));
                Some(view! { <HostList/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                if let Found::Hosts(list) = found {
                    again.open_hosts((asked, list));
                }
            })
        />
        <EvacuateDialog/>
    }
    .into_any()
}

#[component]
fn HostList() -> impl IntoView {
    let live = expect_context::<Live>();
    let ids = memo(move || live.host_ids());
    view! {
        <div class="page-head">
            <h1>"Hosts"</h1>
        </div>
        <When
            is=Signal::derive(move || !ids.with(Vec::is_empty))
            otherwise=|| view! { <EmptyState title="No hosts yet" text="A host appears here when its agent connects for the first time."/> }
        >
            <div class="sections">
                <Rows ids=ids/>
                <Evacuations ids=ids/>
            </div>
        </When>
    }
}

/// Of every host whose VMs go or have gone.
#[component]
fn Evacuations(ids: Memo<Vec<HostId>>) -> impl IntoView {
    let live = expect_context::<Live>();
    let panels = Signal::derive(move || {
        let panel = |id: HostId| {
            let live = live.clone();
            Item::new(id, move || {
                live.host(id).map(|host| view! { <Evacuation host=host/> })
            })
        };
        ids.get().into_iter().map(panel).collect()
    });
    view! { <Each items=panels/> }
}

/// The last one is for those who may change anything.
const COLUMNS: &[&str] = &[
    "Host",
    "State",
    "Hypervisor",
    "vCPUs",
    "Memory",
    "Disk",
    "VMs",
    "Actions",
];

#[component]
fn Rows(ids: Memo<Vec<HostId>>) -> impl IntoView {
    let live = expect_context::<Live>();
    let columns = match COLUMNS.split_last() {
        Some((_, others)) if !expect_context::<Caller>().may_manage_hosts() => others,
        Some(_) | None => COLUMNS,
    };
    let rows = Signal::derive(move || {
        let row = |id: HostId| {
            let live = live.clone();
            Item::new(id, move || {
                live.host(id).map(|host| view! { <HostRow host=host/> })
            })
        };
        ids.get().into_iter().map(row).collect()
    });
    view! {
        <Table
            caption="Hosts"
            columns=columns
        >
            <Each items=rows/>
        </Table>
    }
}

#[component]
fn HostRow(host: HostEntry) -> impl IntoView {
    let entry = host.clone();
    follow(&entry);
    let may = expect_context::<Caller>().may_manage_hosts();
    let asked_of = host.view.clone();
    let host = RwSignal::from(host.view);
    let (id, name) = host.with_untracked(|host| (host.id, host.name.to_string()));
    let of = |name: &str, what: &str| format!("{what} of {name}");
    let (vcpus, memory, disk) = (of(&name, "vCPUs"), of(&name, "Memory"), of(&name, "Disk"));
    let row_name = name.clone();
    view! {
        <tr role="row" data-host=row_name>
            <Cell title="Host">
                <a href=format!("/admin/hosts/{id}") class="name">{name}</a>
                <span class="why">{text(move || host.with(|host| format!("zone {}", host.zone)))}</span>
            </Cell>
            <Cell title="State">
                <HostCondition host=entry/>
            </Cell>
            <Cell title="Hypervisor">
                {text(move || host.with(|host| format!("{} · {}", host.hypervisor, host.accelerator)))}
                <span class="why">{text(move || host.with(|host| host.accelerator_note.clone()))}</span>
            </Cell>
            <Cell title="vCPUs"><VcpuMeter label=vcpus host=host/></Cell>
            <Cell title="Memory">
                <AmountMeter label=memory host=host used=|host| host.used.memory_mib max=|host| host.capacity.memory_mib/>
            </Cell>
            <Cell title="Disk">
                <AmountMeter label=disk host=host used=|host| host.used.disk_mib max=|host| host.capacity.disk_mib/>
            </Cell>
            <Cell title="VMs">{text(move || host.with(|host| host.vms.to_string()))}</Cell>
            {may.then(|| view! { <Cell title="Actions"><HostActions host=asked_of compact=true/></Cell> }.into_any())}
        </tr>
    }
    .into_any()
}

/// The state of a host, and everything about it that wants attention.
#[component]
pub fn HostCondition(host: HostEntry) -> impl IntoView {
    let HostEntry {
        view,
        doubt,
        evacuation,
        ..
    } = host;
    let condition = {
        let view = view.clone();
        memo(move || view.with(|host| (host.state, host.connected)))
    };
    let orphans = {
        let view = view.clone();
        memo(move || view.with(|host| host.orphans))
    };
    let wish = {
        let view = view.clone();
        memo(move || view.with(hidden_wish))
    };
    let gone =
        memo(move || evacuation.with(|view| view.as_ref().filter(|view| !view.over).map(moved)));
    view! {
        <Badge
            tone=Signal::derive(move || host_tone(condition.get()))
            text=Signal::derive(move || condition.get().0.name().to_owned())
        />
        <span class="why">{text(move || if condition.get().1 { "connected" } else { "not connected" })}</span>
        {part(move || doubt.get().map(|reason| view! { <span class="alarm"><Prose text=sentence(&reason)/></span> }.into_any()))}
        {part(move || wish.get().map(|wish| view! { <span class="why">{wish}</span> }.into_any()))}
        {part(move || gone.get().map(|gone| view! { <span class="why">{gone}</span> }.into_any()))}
        <CertificateAlarm host=view/>
        {part(move || orphans_text(orphans.get()).map(|text| view! { <span class="alarm">{text}</span> }.into_any()))}
    }
}

const fn host_tone(condition: (HostState, bool)) -> Tone {
    match condition {
        (HostState::Enabled, true) => Tone::Good,
        (HostState::Cordoned | HostState::Maintenance, true) => Tone::Resting,
        (HostState::Draining, _) => Tone::Moving,
        (HostState::Enabled | HostState::Cordoned | HostState::Maintenance, false) => Tone::Moving,
        (HostState::Doubted | HostState::Unknown, _) => Tone::Bad,
    }
}

/// What is wanted of a host whose state is another, because it is silent or makes
/// no sense.
fn hidden_wish(host: &HostView) -> Option<&'static str> {
    match (host.state, host.desired) {
        (
            HostState::Enabled | HostState::Cordoned | HostState::Draining | HostState::Maintenance,
            _,
        )
        | (HostState::Doubted | HostState::Unknown, DesiredState::Enabled) => None,
        (HostState::Doubted | HostState::Unknown, DesiredState::Cordoned) => Some("to be cordoned"),
        (HostState::Doubted | HostState::Unknown, DesiredState::Draining) => Some("to be drained"),
        (HostState::Doubted | HostState::Unknown, DesiredState::Maintenance) => {
            Some("to be in maintenance")
        }
    }
}

/// How long before its end a certificate becomes an alarm: it is renewed long
/// before by itself.
const CLOSE_TO_EXPIRY_MS: i64 = 7 * 24 * 3600 * 1000;

/// The certificate, if somebody should look at it.
#[component]
fn CertificateAlarm(host: ArcRwSignal<HostView>) -> impl IntoView {
    let clock = use_context::<Clock>();
    let certificate = memo(move || host.with(|host| (host.revoked, host.certificate_expires_at)));
    let close = memo(move || {
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
pub fn VcpuMeter(label: String, host: RwSignal<HostView>) -> impl IntoView {
    let used = move |host: &HostView| {
        thousandths(u64::from(host.used.vcpus), u64::from(host.capacity.vcpus))
    };
    let numbers = |host: &HostView| format!("{} of {}", host.used.vcpus, host.capacity.vcpus);
    view! {
        <Meter
            label=label
            used=Signal::derive(move || host.with(used))
            text=Signal::derive(move || host.with(numbers))
        />
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
            used=Signal::derive(move || host.with(|host| thousandths(used(host).0, max(host).0)))
            text=Signal::derive(move || host.with(|host| format!("{} of {}", used(host), max(host))))
        />
    }
}
