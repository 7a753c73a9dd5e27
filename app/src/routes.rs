//! The whole portal: what every page shares, and which page is where.

use leptos::prelude::*;
use leptos_meta::{Title, provide_meta_context};
use leptos_router::components::{ParentRoute, Redirect, Route, Router, Routes};
use leptos_router::{Lazy, SsrMode, path};
use vimana_ui::{Clock, Toasts};

use crate::frame::Frame;
use crate::live::Live;
use crate::page::{
    BackupsPage, FlavorsPage, HostPage, HostsPage, ImagePage, ImagesPage, NewImagePage,
    NewTemplatePage, NewVmPage, NotFoundPage, QuotaPage, RequestPage, RequestsPage, SignInPage,
    TemplatePage, TemplatesPage, TenantPage, TenantsPage, VmPage, VmsPage, VolumesPage,
};
use crate::session::CurrentSession;
use crate::uploads::Uploads;

/// Every page waits for its data: it comes from the same process within
/// milliseconds, statuses are real, and the HTML is whole without scripts.
#[component]
pub fn App() -> impl IntoView {
    provide_meta_context();
    Clock::provide();
    Toasts::provide();
    Live::provide();
    Uploads::provide();
    CurrentSession::provide();
    view! {
        <Title formatter=|page: String| {
            if page.is_empty() { "Vimana".to_owned() } else { format!("{page} · Vimana") }
        }/>
        <Router>
            <Routes fallback=NotFoundPage>
                <Route path=path!("/sign-in") view=SignInPage ssr=SsrMode::Async/>
                <Route path=path!("/") view=|| view! { <Redirect path="/vms"/> } ssr=SsrMode::Async/>
                <ParentRoute path=path!("") view=Frame ssr=SsrMode::Async>
                    <Route path=path!("/vms") view={Lazy::<VmsPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/vms/new") view={Lazy::<NewVmPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/vms/:id") view={Lazy::<VmPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/requests") view={Lazy::<RequestsPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/requests/:id") view={Lazy::<RequestPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/images") view={Lazy::<ImagesPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/images/new") view={Lazy::<NewImagePage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/images/:id") view={Lazy::<ImagePage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/backups") view={Lazy::<BackupsPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/templates") view={Lazy::<TemplatesPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/templates/new") view={Lazy::<NewTemplatePage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/templates/:id") view={Lazy::<TemplatePage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/admin/flavors") view={Lazy::<FlavorsPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/volumes") view={Lazy::<VolumesPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/quota") view={Lazy::<QuotaPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/admin/tenants") view={Lazy::<TenantsPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/admin/tenants/:id") view={Lazy::<TenantPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/admin/hosts") view={Lazy::<HostsPage>::new()} ssr=SsrMode::Async/>
                    <Route path=path!("/admin/hosts/:id") view={Lazy::<HostPage>::new()} ssr=SsrMode::Async/>
                </ParentRoute>
            </Routes>
        </Router>
    }
    .into_any()
}
