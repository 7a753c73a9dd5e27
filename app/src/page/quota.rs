//! `/quota`: what one may have and has, as a user and as a tenant.

mod table;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::quota::{QuotaLine, Scope};
use vimana_ui::part;

use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use crate::api::QuotaPageData;
use crate::session::Caller;
pub use table::{InUse, QuotaTable, Usage, title};

lazy_page!(
    /// One's own limits.
    QuotaPage in quota = page, wants || Wanted::Quota
);

fn page(asked: Asked) -> AnyView {
    let data = ArcRwSignal::new(None::<QuotaPageData>);
    let again = data.clone();
    view! {
        <Title text="Quota"/>
        <Loaded
            asked=asked
            show=Arc::new(move |caller, _, found| {
                let Found::Quota(found) = found else {
                    return None;
                };
                data.set(Some(*found));
                Some(view! { <Page caller=caller data=data.clone()/> }.into_any())
            })
            again=Arc::new(move |_, found| {
                if let Found::Quota(found) = found {
                    again.set(Some(*found));
                }
            })
        />
    }
    .into_any()
}

#[component]
fn Page(caller: Caller, data: ArcRwSignal<Option<QuotaPageData>>) -> impl IntoView {
    let tenant = caller.me.tenant.to_string();
    let may_share = caller.may_share_quota(caller.me.tenant_id);
    let id = caller.me.tenant_id;
    let lines = move |of: fn(&QuotaPageData) -> &Vec<QuotaLine>| {
        let data = data.clone();
        Signal::derive(move || data.with(|data| data.as_ref().map(of).cloned().unwrap_or_default()))
    };
    let (of_tenant, of_user) = (
        lines.clone()(|data| &data.own.tenant),
        lines.clone()(|data| &data.own.user),
    );
    let of_all = lines(|data| &data.all_users);
    let has_own =
        Signal::derive(move || of_user.with(|lines| lines.iter().any(QuotaLine::is_limited)));
    view! {
        <div class="page-head">
            <div>
                <h1>"Quota"</h1>
                <p class="lead">"How much there is for you, and how much of it is in use."</p>
            </div>
        </div>
        <div class="sections">
            <section class="panel" aria-labelledby="quota-tenant">
                <h2 id="quota-tenant">"Tenant " {tenant}</h2>
                <Usage caption="The tenant's limits" lines=of_tenant/>
            </section>
            <section class="panel" aria-labelledby="quota-user">
                <h2 id="quota-user">"You"</h2>
                {part(move || Some(if has_own.get() {
                    view! { <Usage caption="Your own limits" lines=of_user/> }.into_any()
                } else {
                    view! { <p>"Within the tenant's limits you have none of your own."</p> }.into_any()
                }))}
            </section>
            {may_share.then(|| view! {
                <section class="panel" aria-labelledby="quota-users">
                    <h2 id="quota-users">"Every user"</h2>
                    <p class="lead">"Limits of each user of the tenant who has none of their own."</p>
                    <QuotaTable whose=Scope::AllUsers(id) caption="Limits of every user" lines=of_all.get_untracked() shows_usage=false/>
                </section>
            }.into_any())}
        </div>
    }
    .into_any()
}
