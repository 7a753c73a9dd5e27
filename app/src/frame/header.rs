//! The bar at the top: mark, ways, freshness, user.

use std::sync::Arc;

use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_location;
use vimana_model::session::{MeView, Role, StaffRole};
use vimana_ui::{Icon, IconName, ToastKind, Toasts, memo, part, press, text, word};

use crate::api::{SessionView, sign_out};
use crate::live::{Link, Live};
use crate::session::{Caller, CurrentSession};
use crate::theme::Theme;
use crate::uploads::Uploads;

/// Mark, ways, freshness, user; and what begins with the sign-in: following
/// the world.
#[component]
pub fn Bar(view: SessionView) -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let seq = view.seq;
    let caller = Caller::new(view.me);
    live.open_waiting(caller.clone(), view.waiting);
    Effect::new(move |_| live.follow(seq, session));
    let hosts = caller.may_see_hosts();
    let flavors = caller.may_keep_flavors();
    let tenants = caller.may_see_tenants();
    let requests = caller.has_requests();
    let new = caller.may_create().then(|| caller.new_title());
    view! {
        <a href="/vms" class="brand" aria-label="Vimana, my VMs">
            <Mark/>
            <span class="brand-name">"Vimana"</span>
        </a>
        <nav class="nav" aria-label="Main">
            <NavLink to="/vms">"My VMs"</NavLink>
            {new.map(|new| view! { <NavLink to="/vms/new">{new}</NavLink> })}
            {requests.then(|| view! { <NavLink to="/requests">"Requests" <Waiting/></NavLink> })}
            <NavLink to="/images">"Images"</NavLink>
            <NavLink to="/volumes">"Volumes"</NavLink>
            <NavLink to="/backups">"Backups"</NavLink>
            <NavLink to="/templates">"Templates"</NavLink>
            <NavLink to="/quota">"Quota"</NavLink>
            {tenants.then(|| view! { <NavLink to="/admin/tenants">"Tenants"</NavLink> })}
            {flavors.then(|| view! { <NavLink to="/admin/flavors">"Flavors"</NavLink> })}
            {hosts.then(|| view! { <NavLink to="/admin/hosts">"Hosts"</NavLink> })}
        </nav>
        <LiveMark/>
        <UserMenu me=caller.me/>
    }
    .into_any()
}

/// A way that says whether one is there.
#[component]
fn NavLink(to: &'static str, children: Children) -> impl IntoView {
    let path = use_location().pathname;
    let here = word(move || path.with(|path| path == to).then_some("page"));
    view! { <a href=to aria-current=here>{children()}</a> }
}

/// How many requests wait for whoever is signed in.
#[component]
fn Waiting() -> impl IntoView {
    let live = expect_context::<Live>();
    let count = memo(move || live.waiting());
    part(move || {
        let count = count.get();
        (count > 0).then(|| view! {
            <span class="count">{count.to_string()}</span>
            <span class="unseen">{if count == 1 { "waits for you" } else { "wait for you" }}</span>
        })
    })
}

/// A tower of three storeys on a wing: the palace that flies.
#[component]
pub fn Mark() -> impl IntoView {
    view! {
        <svg class="mark" viewBox="0 0 24 24" width="26" height="26" aria-hidden="true">
            <path class="mark-tower" d="M12 1.5 13.4 4 12 6.5 10.6 4ZM9.9 7.5h4.2l.9 2.8H9ZM7.6 11.4h8.8l1 3.1a22 22 0 0 1-10.8 0Z"></path>
            <path class="mark-wing" d="M1 11.8c2.6 6.4 6.6 9.4 11 9.4s8.4-3 11-9.4c-2.7 4-6.5 5.9-11 5.9s-8.3-1.9-11-5.9Z"></path>
        </svg>
    }
}

/// Whether what is shown is true now.
#[component]
fn LiveMark() -> impl IntoView {
    let live = expect_context::<Live>();
    let link = memo(move || live.link());
    let slug = word(move || {
        Some(match link.get() {
            Link::Fresh => "fresh",
            Link::Live => "live",
            Link::Stale => "stale",
        })
    });
    let said = text(move || match link.get() {
        Link::Fresh => "Connecting…",
        Link::Live => "Live",
        Link::Stale => "Stale — reconnecting…",
    });
    view! {
        <p class="live" role="status" data-link=slug>
            <span>{said}</span>
        </p>
    }
}

#[component]
fn UserMenu(me: Arc<MeView>) -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let live = expect_context::<Live>();
    let toasts = expect_context::<Toasts>();
    let uploads = expect_context::<Uploads>();
    let leave = move || {
        let (live, uploads) = (live.clone(), uploads.clone());
        spawn_local(async move {
            match sign_out().await {
                Ok(()) => {
                    live.leave();
                    uploads.leave();
                    session.set(None);
                }
                Err(error) => toasts.show(ToastKind::Error, error.sentence()),
            }
        });
    };
    view! {
        <button
            r#type="button"
            class="button user-button"
            data-kind="bare"
            popovertarget="user-menu"
            aria-label=format!("{}, user menu", me.user_name)
        >
            <Icon name=IconName::User/>
            <span class="user-name">{me.user_name.to_string()}</span>
            <Icon name=IconName::Chevron/>
        </button>
        <div id="user-menu" class="menu" popover="auto">
            <p class="menu-who">
                <strong>{me.user_name.to_string()}</strong>
                <span>{roles(me.role, me.staff)} " in " {me.tenant.to_string()}</span>
            </p>
            <ThemeChoice/>
            <button r#type="button" class="button" data-kind="plain" on:click=press(leave)>
                <Icon name=IconName::SignOut/>
                <span>"Sign out"</span>
            </button>
        </div>
    }
    .into_any()
}

fn roles(role: Role, staff: Option<StaffRole>) -> &'static str {
    match (staff, role) {
        (Some(StaffRole::Admin), _) => "Administrator",
        (Some(StaffRole::Auditor), _) => "Auditor",
        (None, Role::Manager) => "Manager",
        (None, Role::Operator) => "Operator",
        (None, Role::Viewer) => "Viewer",
    }
}

#[component]
fn ThemeChoice() -> impl IntoView {
    let chosen = RwSignal::new(None::<Theme>);
    Effect::new(move |_| chosen.set(Some(Theme::current())));
    let choices = Theme::ALL
        .into_iter()
        .map(|theme| {
            let choose = move || {
                theme.choose();
                chosen.set(Some(theme));
            };
            view! {
                <button
                    r#type="button"
                    class="segment"
                    aria-pressed=word(move || Some(if chosen.get() == Some(theme) { "true" } else { "false" }))
                    on:click=press(choose)
                >
                    {theme.title()}
                </button>
            }
        })
        .map(IntoAny::into_any).collect::<Vec<_>>();
    view! {
        <div class="segments" role="group" aria-label="Colours">
            {choices}
        </div>
    }
}
