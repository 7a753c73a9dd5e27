//! What a page waits for before it shows anything. One resource for all pages:
//! each of its own would bring its own copy of everything around it to the
//! browser.

use std::sync::Arc;

use futures::join;
use leptos::prelude::*;
use leptos::task::spawn_local;
use serde::{Deserialize, Serialize};
use vimana_model::event::EventView;
use vimana_model::flavor::FlavorView;
use vimana_model::image::ImageView;
use vimana_model::operation::OperationView;
use vimana_model::request::RequestView;
use vimana_model::snapshot::SnapshotView;
use vimana_model::template::TemplateView;
use vimana_model::vm::VmView;
use vimana_model::volume::VolumeView;
use vimana_model::{Error, HostId, ImageId, RequestId, TemplateId, TenantId, VmId};
use vimana_ui::memo;

use super::problem::ProblemView;
use crate::api::{
    ApiError, ApiResult, BackupsData, Catalogue, HostPageData, HostRow, QuotaPageData, RequestShow,
    Show, TenantData, TenantsData, backups, catalogue, flavors, host, hosts, image,
    image_operations, image_timeline, images, own_quota, request, request_timeline, requests,
    template, templates, tenant, tenants, vm, vm_operations, vm_snapshots, vm_timeline, vms,
    volumes,
};
use crate::live::{Live, Mark};
use crate::session::{Caller, CurrentSession};

/// What a page asks for. Ids are as the address has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Vms(Show),
    Vm(String),
    Requests(RequestShow),
    Request(String),
    Hosts,
    Host(String),
    Images,
    Image(String),
    Backups,
    Templates,
    Template(String),
    Flavors,
    Volumes,
    Choices,
    Quota,
    Tenants,
    Tenant(String),
}

impl Wanted {
    /// Whether it says how many VMs are made from an image.
    const fn counts(&self) -> bool {
        match self {
            Self::Images | Self::Image(_) => true,
            Self::Vms(_)
            | Self::Vm(_)
            | Self::Requests(_)
            | Self::Request(_)
            | Self::Hosts
            | Self::Host(_)
            | Self::Backups
            | Self::Templates
            | Self::Template(_)
            | Self::Flavors
            | Self::Volumes
            | Self::Choices
            | Self::Quota
            | Self::Tenants
            | Self::Tenant(_) => false,
        }
    }
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Found {
    Vms(Vec<VmView>),
    Vm(Box<FoundVm>),
    Requests(Vec<RequestView>),
    Request(Box<FoundRequest>),
    Hosts(Vec<HostRow>),
    Host(Box<HostPageData>),
    Images(Vec<ImageView>),
    Image(Box<FoundImage>),
    Backups(Box<BackupsData>),
    Templates(Vec<TemplateView>),
    Template(Box<FoundTemplate>),
    Flavors(Vec<FlavorView>),
    Volumes(Vec<VolumeView>),
    Choices(Catalogue),
    Quota(Box<QuotaPageData>),
    Tenants(Box<TenantsData>),
    Tenant(Box<TenantData>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundVm {
    pub vm: VmView,
    /// Oldest first.
    pub events: Vec<EventView>,
    /// Newest first.
    pub operations: Vec<OperationView>,
    /// Oldest first.
    pub snapshots: Vec<SnapshotView>,
    /// The tenant's, by name.
    pub volumes: Vec<VolumeView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundRequest {
    pub request: RequestView,
    /// Oldest first.
    pub events: Vec<EventView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundImage {
    pub image: ImageView,
    /// Oldest first.
    pub events: Vec<EventView>,
    /// Newest first.
    pub operations: Vec<OperationView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundTemplate {
    pub template: TemplateView,
    /// What it may name.
    pub choices: Catalogue,
}

async fn load(wanted: Wanted) -> ApiResult<Found> {
    Ok(match wanted {
        Wanted::Vms(show) => Found::Vms(vms(show).await?),
        Wanted::Vm(id) => {
            let id: VmId = named("VM", &id)?;
            Found::Vm(Box::new(Box::pin(all_of_vm(id)).await?))
        }
        Wanted::Requests(show) => Found::Requests(requests(show).await?),
        Wanted::Request(id) => {
            let id: RequestId = named("request", &id)?;
            let (request, events) = join!(request(id), request_timeline(id));
            Found::Request(Box::new(FoundRequest {
                request: request?,
                events: events?,
            }))
        }
        Wanted::Hosts => Found::Hosts(hosts().await?),
        Wanted::Host(id) => {
            let id: HostId = named("host", &id)?;
            Found::Host(Box::new(host(id).await?))
        }
        Wanted::Images => Found::Images(images().await?),
        Wanted::Image(id) => {
            let id: ImageId = named("image", &id)?;
            let found = join!(image(id), image_timeline(id), image_operations(id));
            let (image, events, operations) = found;
            Found::Image(Box::new(FoundImage {
                image: image?,
                events: events?,
                operations: operations?,
            }))
        }
        Wanted::Backups => Found::Backups(Box::new(backups().await?)),
        Wanted::Templates => Found::Templates(templates().await?),
        Wanted::Template(id) => {
            let id: TemplateId = named("template", &id)?;
            let (template, choices) = join!(template(id), catalogue());
            Found::Template(Box::new(FoundTemplate {
                template: template?,
                choices: choices?,
            }))
        }
        Wanted::Flavors => Found::Flavors(flavors().await?),
        Wanted::Volumes => Found::Volumes(volumes().await?),
        Wanted::Choices => Found::Choices(catalogue().await?),
        Wanted::Quota => Found::Quota(Box::new(own_quota().await?)),
        Wanted::Tenants => Found::Tenants(Box::new(tenants().await?)),
        Wanted::Tenant(id) => {
            let id: TenantId = named("tenant", &id)?;
            Found::Tenant(Box::new(tenant(id).await?))
        }
    })
}

async fn all_of_vm(id: VmId) -> ApiResult<FoundVm> {
    let (vm, events, operations, snapshots, volumes) = join!(
        vm(id),
        vm_timeline(id),
        vm_operations(id),
        vm_snapshots(id),
        volumes()
    );
    Ok(FoundVm {
        vm: vm?,
        events: events?,
        operations: operations?,
        snapshots: snapshots?,
        volumes: volumes?,
    })
}

/// What is no id names nothing.
fn named<T: std::str::FromStr>(what: &str, id: &str) -> ApiResult<T> {
    id.parse().map_err(|_| {
        #[cfg(feature = "ssr")]
        crate::ssr::set_status(404);
        ApiError::from(Error::not_found(what))
    })
}

/// The part of the address that names what the page is about.
#[must_use]
pub fn id_in_address() -> Memo<String> {
    let params = leptos_router::hooks::use_params_map();
    memo(move || params.with(|params| params.get_str("id").unwrap_or_default().to_owned()))
}

/// What a page asked for as soon as its address was known.
#[derive(Clone)]
pub struct Asked {
    wanted: ArcMemo<Wanted>,
    all: ArcResource<ApiResult<(Mark, Found)>>,
}

impl Asked {
    /// Asks; and again whenever `wanted` is something else.
    pub fn new(wanted: impl Fn() -> Wanted + Send + Sync + 'static) -> Self {
        fn shared(wanted: Arc<dyn Fn() -> Wanted + Send + Sync>) -> Asked {
            let live = expect_context::<Live>();
            let wanted = ArcMemo::new(move |_| wanted());
            let source = wanted.clone();
            let all = ArcResource::new_blocking(
                move || source.get(),
                move |wanted| live.ask(load(wanted)),
            );
            Asked { wanted, all }
        }
        shared(Arc::new(wanted))
    }
}

/// How a page shows what was found; `None` for what it did not ask for.
type ShowFound = Arc<dyn Fn(Caller, Mark, Found) -> Option<AnyView> + Send + Sync>;
/// How it takes it in anew after events were lost.
type TakeAgain = Arc<dyn Fn(Mark, Found) + Send + Sync>;

/// A page: waits for what it asked for, shows it, and takes it in anew whenever
/// events were lost.
#[component]
pub fn Loaded(asked: Asked, show: ShowFound, again: TakeAgain) -> impl IntoView {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let Asked { wanted, all } = asked;
    let reload = live.clone();
    let counts = wanted.with_untracked(Wanted::counts);
    live.on_reset(counts, move || {
        let (live, again, wanted) = (reload.clone(), again.clone(), wanted.get_untracked());
        spawn_local(async move {
            // A failure shows as the stale mark; the next reset tries again.
            if let Ok((asked, found)) = live.ask(load(wanted)).await {
                again(asked, found);
            }
        });
    });
    view! {
        <Transition fallback=|| view! { <p class="loading">"Loading…"</p> }>
            {move || {
                let (show, all) = (show.clone(), all.clone());
                Suspend::new(async move {
                    match session.and(all).await {
                        Ok((caller, (asked, found))) => {
                            provide_context(caller.clone());
                            show(caller, asked, found).into_any()
                        }
                        Err(error) => view! { <ProblemView error=error/> }.into_any(),
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}
