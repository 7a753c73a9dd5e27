//! REST v1: one file per resource, and the document that describes them all.

mod backup;
mod console;
mod enrolment;
mod evacuation;
mod event;
mod extract;
mod flavor;
mod host;
mod image;
mod once;
mod operation;
mod orphan;
pub mod problem;
mod quota;
mod request;
mod session;
mod snapshot;
mod template;
mod tenant;
mod user;
mod vm;
mod volume;

use axum::Router;
use axum::http::header;
use axum::routing::{any, get};
use serde::Serialize;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use console::not_a_websocket;
pub use extract::{Id, Json, authorization_token};
use vimana_model::event::ProgressItem;
use vimana_model::{Error, ErrorKind};

use crate::state::App;
use problem::ApiError;

/// A list as it travels.
#[derive(Serialize, ToSchema)]
pub struct Items<T> {
    pub items: Vec<T>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Vimana",
        description = "Virtual machines on a fleet of hosts. Every refusal is a problem document \
                       (RFC 9457). A list answers an object with `items`. Changes are accepted \
                       with 202 and go on as an operation; follow them at /events. With an \
                       `Idempotency-Key` a change happens once, however often it is sent.",
    ),
    components(schemas(ProgressItem)),
    security(("token" = []), ("session" = [])),
    modifiers(&Credentials),
)]
struct Description;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut Document) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of POST /tokens"))
            .build();
        let session = ApiKeyValue::with_description(
            "vimana_session",
            "The portal's session; changes with it need an Origin of the portal's own",
        );
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(session)));
    }
}

/// What takes its bodies as they come, and not whole.
fn streamed() -> OpenApiRouter<App> {
    let v1 = OpenApiRouter::new().routes(routes!(
        image::content::download,
        image::content::reach,
        image::content::send
    ));
    OpenApiRouter::new().nest("/api/v1", v1)
}

fn documented() -> OpenApiRouter<App> {
    let v1 = OpenApiRouter::new()
        .routes(routes!(session::create))
        .routes(routes!(session::delete_current))
        .routes(routes!(session::me))
        .routes(routes!(vm::list, vm::create))
        .routes(routes!(vm::show, vm::action::delete))
        .routes(routes!(vm::action::hold))
        .routes(routes!(vm::action::release))
        .routes(routes!(vm::action::suspend))
        .routes(routes!(vm::action::stop))
        .routes(routes!(vm::action::resume))
        .routes(routes!(vm::action::power_off))
        .routes(routes!(vm::action::start))
        .routes(routes!(vm::action::reboot))
        .routes(routes!(vm::action::reset))
        .routes(routes!(vm::action::resize))
        .routes(routes!(vm::action::migrate))
        .routes(routes!(vm::action::migration_targets))
        .routes(routes!(vm::action::storage_targets))
        .routes(routes!(vm::action::retry))
        .routes(routes!(vm::action::shutdown))
        .routes(routes!(vm::timeline))
        .routes(routes!(vm::operations))
        .routes(routes!(vm::console_ticket))
        .routes(routes!(console::open))
        .routes(routes!(operation::show))
        .routes(routes!(operation::cancel))
        .routes(routes!(request::list, request::create))
        .routes(routes!(request::show))
        .routes(routes!(request::events))
        .routes(routes!(request::act))
        .routes(routes!(host::list))
        .routes(routes!(host::events))
        .routes(routes!(evacuation::cordon))
        .routes(routes!(evacuation::enable))
        .routes(routes!(evacuation::evacuate))
        .routes(routes!(evacuation::show))
        .routes(routes!(enrolment::create_token))
        .routes(routes!(enrolment::revoke))
        .routes(routes!(orphan::list))
        .routes(routes!(orphan::discard))
        .routes(routes!(image::list, image::import))
        .routes(routes!(image::show, image::delete))
        .routes(routes!(image::timeline))
        .routes(routes!(image::operations))
        .routes(routes!(image::restore))
        .routes(routes!(image::purge))
        .routes(routes!(image::retry))
        .routes(routes!(
            image::refresh,
            image::set_refresh,
            image::stop_refresh
        ))
        .routes(routes!(snapshot::list, snapshot::take))
        .routes(routes!(snapshot::revert))
        .routes(routes!(snapshot::delete))
        .routes(routes!(volume::list, volume::create))
        .routes(routes!(volume::show, volume::change, volume::delete))
        .routes(routes!(volume::timeline))
        .routes(routes!(volume::attach))
        .routes(routes!(volume::detach))
        .routes(routes!(volume::grow))
        .routes(routes!(volume::relocate))
        .routes(routes!(volume::datastores))
        .routes(routes!(backup::list))
        .routes(routes!(backup::of_vm, backup::take))
        .routes(routes!(backup::show, backup::delete))
        .routes(routes!(backup::restore))
        .routes(routes!(backup::schedules))
        .routes(routes!(backup::set_schedule, backup::remove_schedule))
        .routes(routes!(backup::datastores))
        .routes(routes!(flavor::list, flavor::create))
        .routes(routes!(flavor::change, flavor::delete))
        .routes(routes!(template::list, template::create))
        .routes(routes!(template::show, template::change, template::delete))
        .routes(routes!(volume::clone))
        .routes(routes!(tenant::list, tenant::create))
        .routes(routes!(tenant::show, tenant::update))
        .routes(routes!(tenant::members))
        .routes(routes!(quota::list_tenants))
        .routes(routes!(user::list, user::create))
        .routes(routes!(quota::show_own))
        .routes(routes!(quota::show_defaults, quota::set_defaults))
        .routes(routes!(quota::show_tenant, quota::set_tenant))
        .routes(routes!(quota::show_user_defaults, quota::set_user_defaults))
        .routes(routes!(quota::show_user, quota::set_user))
        .routes(routes!(event::stream));
    OpenApiRouter::with_openapi(Description::openapi()).nest("/api/v1", v1)
}

/// The interface's description.
#[must_use]
pub fn openapi() -> Document {
    let mut document = documented().merge(streamed()).into_openapi();
    once::describe(&mut document);
    document
}

/// The part of [`router`] whose bodies nobody may read before its handlers.
pub fn streamed_router() -> Router<App> {
    let (router, _) = streamed().split_for_parts();
    router.method_not_allowed_fallback(wrong_method)
}

/// Everything else below `/api`.
pub fn router() -> Router<App> {
    let (router, _) = documented().split_for_parts();
    // The document does not change while the server runs.
    let text = openapi().to_pretty_json().unwrap_or_default();
    let describe = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    router
        .route("/api/v1/openapi.json", get(describe))
        .route("/api", any(unknown))
        .route("/api/{*rest}", any(unknown))
        .method_not_allowed_fallback(wrong_method)
}

/// For addresses that programs use and that do not exist.
pub async fn unknown() -> ApiError {
    ApiError(Error::new(
        ErrorKind::NotFound,
        "there is nothing at this address",
    ))
}

async fn wrong_method() -> axum::http::StatusCode {
    axum::http::StatusCode::METHOD_NOT_ALLOWED
}
