//! `/admin/tenants` and `/admin/tenants/ID`: who shares the installation, and how
//! much of it each may have.

mod form;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::quota::{Measure, QuotaLine, Scope, TenantQuotaView};
use vimana_model::session::Role;
use vimana_model::tenant::{TenantKind, UserView};
use vimana_ui::{Cell, Dialog, EmptyState, Icon, IconName, Table, When, part, press};

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted, id_in_address};
use super::quota::{InUse, QuotaTable, Usage};
use super::sentence;
use crate::api::{TenantData, TenantsData};
use crate::session::Caller;
use form::TenantForm;

lazy_page!(
    /// All tenants.
    TenantsPage in tenants = list_page, wants || Wanted::Tenants
);

lazy_page!(
    /// One tenant.
    TenantPage in tenant = tenant_page, wants {
        let id = id_in_address();
        move || Wanted::Tenant(id.get())
    }
);

type Tenancies = ArcRwSignal<Vec<TenantQuotaView>>;

fn list_page(asked: Asked) -> AnyView {
    let list = Tenancies::default();
    let again = list.clone();
    view! {
        <Title text="Tenants"/>
        <Loaded
            asked=asked
            show=Arc::new(move |caller, _, found| {
                let Found::Tenants(found) = found else {
                    return None;
                };
                let TenantsData { tenants, defaults } = *found;
                list.set(tenants);
                Some(view! { <Tenants caller=caller list=list.clone() defaults=defaults/> }.into_any())
            })
            again=Arc::new(move |_, found| {
                if let Found::Tenants(found) = found {
                    again.set(found.tenants);
                }
            })
        />
    }
    .into_any()
}

#[component]
fn Tenants(caller: Caller, list: Tenancies, defaults: Vec<QuotaLine>) -> impl IntoView {
    let may = caller.may_manage_tenants();
    let open = RwSignal::new(false);
    let close = Callback::new(move |()| open.set(false));
    let (shown, some) = (list.clone(), list.clone());
    let defaults = if may {
        view! { <QuotaTable whose=Scope::AllTenants caption="Default limits" lines=defaults shows_usage=false/> }
            .into_any()
    } else {
        let lines = Signal::derive(move || defaults.clone());
        view! { <Usage caption="Default limits" lines=lines/> }.into_any()
    };
    view! {
        <div class="page-head">
            <h1>"Tenants"</h1>
            {may.then(|| view! {
                <button r#type="button" class="button" data-kind="primary" on:click=press(move || open.set(true))>
                    <Icon name=IconName::Plus/>
                    <span>"New tenant"</span>
                </button>
            }.into_any())}
        </div>
        <div class="sections">
            <When
                is=Signal::derive(move || !some.with(Vec::is_empty))
                otherwise=|| view! { <EmptyState title="No tenants yet" text="A tenant is a boundary of isolation: its users see nothing of other tenants."/> }
            >
                <List list=shown.clone()/>
            </When>
            <section class="panel" aria-labelledby="default-limits">
                <h2 id="default-limits">"Default limits"</h2>
                <p class="lead">"For every tenant that has none of its own."</p>
                {defaults}
            </section>
        </div>
        <Dialog id="tenant-form" open=open on_close=close title="New tenant">
            <TenantForm list=list.clone() close=close/>
        </Dialog>
    }
    .into_any()
}

#[component]
fn List(list: Tenancies) -> impl IntoView {
    let rows = part(move || Some(list.get().into_iter().map(row).collect::<Vec<_>>()));
    view! {
        <Table caption="Tenants" columns=&["Tenant", "VMs", "Running", "vCPUs", "Memory", "Disk"]>
            {rows}
        </Table>
    }
}

/// What the list shows of each.
const COLUMNS: [Measure; 5] = [
    Measure::Vms,
    Measure::RunningVms,
    Measure::Vcpus,
    Measure::MemoryMib,
    Measure::DiskMib,
];

fn row(view: TenantQuotaView) -> AnyView {
    let TenantQuotaView { tenant, lines } = view;
    let name = tenant.name.to_string();
    let row_name = name.clone();
    let url = format!("/admin/tenants/{}", tenant.id);
    let [vms, running, vcpus, memory, disk] = COLUMNS.map(|measure| {
        let line = lines.iter().find(|line| line.measure == measure).cloned();
        line.map(|line| view! { <InUse line=line/> })
    });
    view! {
        <tr role="row" data-tenant=row_name>
            <Cell title="Tenant">
                <a href=url class="name">{name}</a>
                <span class="why">{kind(tenant.kind)}</span>
            </Cell>
            <Cell title="VMs">{vms}</Cell>
            <Cell title="Running">{running}</Cell>
            <Cell title="vCPUs">{vcpus}</Cell>
            <Cell title="Memory">{memory}</Cell>
            <Cell title="Disk">{disk}</Cell>
        </tr>
    }
    .into_any()
}

const fn kind(kind: TenantKind) -> &'static str {
    match kind {
        TenantKind::Automatic => "what is asked for is made",
        TenantKind::Manual => "a manager decides",
    }
}

fn tenant_page(asked: Asked) -> AnyView {
    view! {
        <Loaded
            asked=asked
            show=Arc::new(|caller, _, found| {
                let Found::Tenant(found) = found else {
                    return None;
                };
                Some(view! { <Tenant caller=caller data=*found/> }.into_any())
            })
            // Limits change here alone, and usage is told by a reload.
            again=Arc::new(|_, _| ())
        />
    }
    .into_any()
}

#[component]
fn Tenant(caller: Caller, data: TenantData) -> impl IntoView {
    let TenantData {
        tenant,
        lines,
        all_users,
        members,
    } = data;
    let name = tenant.name.to_string();
    let id = tenant.id;
    let limits = |may: bool, whose: Scope, caption: &'static str, lines: Vec<QuotaLine>, usage| {
        if may {
            return view! { <QuotaTable whose=whose caption=caption lines=lines shows_usage=usage/> }
                .into_any();
        }
        let lines = Signal::derive(move || lines.clone());
        view! { <Usage caption=caption lines=lines/> }.into_any()
    };
    let of_tenant = limits(
        caller.may_set_quota(id),
        Scope::Tenant(id),
        "The tenant's limits",
        lines,
        true,
    );
    let of_users = limits(
        caller.may_share_quota(id),
        Scope::AllUsers(id),
        "Limits of every user",
        all_users,
        false,
    );
    let rows: Vec<AnyView> = members.into_iter().map(member).collect();
    view! {
        <Title text=name.clone()/>
        <div class="page-head">
            <div>
                <h1>{name}</h1>
                <p class="lead">{sentence(kind(tenant.kind))}</p>
            </div>
        </div>
        <div class="sections">
            <section class="panel" aria-labelledby="tenant-limits">
                <h2 id="tenant-limits">"Quota"</h2>
                {of_tenant}
            </section>
            <section class="panel" aria-labelledby="user-limits">
                <h2 id="user-limits">"Every user"</h2>
                <p class="lead">"Limits of each user of the tenant who has none of their own."</p>
                {of_users}
            </section>
            <section class="panel" aria-labelledby="members">
                <h2 id="members">"Members"</h2>
                <Table caption="Members" columns=&["Name", "Role"]>{rows}</Table>
            </section>
        </div>
    }
    .into_any()
}

fn member(user: UserView) -> AnyView {
    let role = match user.role {
        Role::Viewer => "Viewer",
        Role::Operator => "Operator",
        Role::Manager => "Manager",
    };
    view! {
        <tr role="row">
            <Cell title="Name"><strong>{user.name.to_string()}</strong></Cell>
            <Cell title="Role">{role}</Cell>
        </tr>
    }
    .into_any()
}
