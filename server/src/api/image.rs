//! Images.

pub mod content;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use vimana_engine::OpContext;
use vimana_fetch::Source;
use vimana_model::event::EventView;
use vimana_model::image::{AcceptedImage, ImageAction, ImageView, ImportImage, RefreshImage};
use vimana_model::operation::OperationView;
use vimana_model::{ImageId, Problem};

use super::Items;
use super::extract::{Caller, Id, Json};
use super::once::Once;
use super::problem::{ApiResult, Refusals};
use crate::state::App;

/// The images that VMs can be made from: the tenant's own, and those for all
#[utoipa::path(
    get, path = "/images", tag = "image", operation_id = "list_images",
    responses((status = 200, description = "Images", body = Items<ImageView>), Refusals),
)]
pub async fn list(
    State(app): State<App>,
    Caller(cx): Caller,
) -> ApiResult<Answer<Items<ImageView>>> {
    let items = app.engine.images(&cx).await?;
    Ok(Answer(Items { items }))
}

/// Import an image
///
/// It is fetched, unpacked and checked; what is not a self-contained raw or
/// qcow2 image, or one of another hypervisor that can be turned into one, is
/// refused. Of an upload this says what will come: its bytes are sent to
/// `/images/{image_id}/content`, and its import waits for them.
#[utoipa::path(
    post, path = "/images", tag = "image", operation_id = "import_image",
    request_body = ImportImage,
    responses(
        (status = 202, description = "Accepted", body = AcceptedImage),
        (status = 409, description = "The name is in use", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is not acceptable, or the image may not be taken from there", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn import(
    State(app): State<App>,
    once: Once,
    Json(form): Json<ImportImage>,
) -> ApiResult<(StatusCode, Answer<AcceptedImage>)> {
    let shown = ImportImage {
        url: form.url.as_deref().map(without_password),
        ..form.clone()
    };
    let cx = once.without_secret("/api/v1/images", &shown)?;
    let engine = app.engine.clone();
    let accepted = app
        .detached(async move { engine.import_image(&cx, &form).await })
        .await?;
    Ok((StatusCode::ACCEPTED, Answer(accepted)))
}

/// A URL as it may be kept.
fn without_password(url: &str) -> String {
    let source: Option<Source> = url.parse().ok();
    source.map(|source| source.to_string()).unwrap_or_default()
}

/// One image
#[utoipa::path(
    get, path = "/images/{image_id}", tag = "image", operation_id = "show_image",
    params(("image_id" = ImageId, Path)),
    responses(
        (status = 200, description = "The image", body = ImageView),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn show(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<ImageId>,
) -> ApiResult<Answer<ImageView>> {
    Ok(Answer(app.engine.image(&cx, id).await?))
}

/// What happened to an image, oldest first
#[utoipa::path(
    get, path = "/images/{image_id}/timeline", tag = "image", operation_id = "image_timeline",
    params(("image_id" = ImageId, Path)),
    responses(
        (status = 200, description = "Events", body = Items<EventView>),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn timeline(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<ImageId>,
) -> ApiResult<Answer<Items<EventView>>> {
    let items = app.engine.image_timeline(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// The imports of an image, newest first
#[utoipa::path(
    get, path = "/images/{image_id}/operations", tag = "image", operation_id = "image_operations",
    params(("image_id" = ImageId, Path)),
    responses(
        (status = 200, description = "Operations", body = Items<OperationView>),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn operations(
    State(app): State<App>,
    Caller(cx): Caller,
    Id(id): Id<ImageId>,
) -> ApiResult<Answer<Items<OperationView>>> {
    let items = app.engine.image_operations(&cx, id).await?;
    Ok(Answer(Items { items }))
}

/// A route for an action on an image.
macro_rules! route {
    (
        $(#[$doc:meta])*
        $name:ident = $method:ident $path:tt, $id:tt, $action:ident
    ) => {
        $(#[$doc])*
        #[utoipa::path(
            $method, path = $path, tag = "image", operation_id = $id,
            params(("image_id" = ImageId, Path)),
            responses(
                (status = 200, description = "Done", body = ImageView),
                (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
                (status = 409, description = "Not in this state", body = Problem, content_type = "application/problem+json"),
                Refusals,
            ),
        )]
        pub async fn $name(
            State(app): State<App>,
            Once(cx): Once,
            Id(id): Id<ImageId>,
        ) -> ApiResult<Answer<ImageView>> {
            act(app, cx, id, ImageAction::$action).await
        }
    };
}

route! {
    /// Put an image in the trash; one that is being imported, or failed, goes at once
    delete = delete "/images/{image_id}", "delete_image", Delete
}
route! {
    /// Take an image out of the trash
    restore = post "/images/{image_id}/restore", "restore_image", Restore
}
route! {
    /// Remove an image from the trash for good
    purge = post "/images/{image_id}/purge", "purge_image", Purge
}
route! {
    /// Import an image again whose import failed
    retry = post "/images/{image_id}/retry", "retry_image", Retry
}

/// Have an image refreshed from now on
///
/// Its source is asked that often whether it has something new, which then takes
/// the image's name; the image stays for the VMs that are made from it. A
/// password in its URL is kept for as long as it is refreshed, and shown to
/// nobody.
#[utoipa::path(
    patch, path = "/images/{image_id}/refresh", tag = "image", operation_id = "set_image_refresh",
    params(("image_id" = ImageId, Path)),
    request_body = RefreshImage,
    responses(
        (status = 200, description = "Done", body = ImageView),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Not ready, or not from a URL", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is not acceptable, or the URL has to be given again", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn set_refresh(
    State(app): State<App>,
    Id(id): Id<ImageId>,
    once: Once,
    Json(form): Json<RefreshImage>,
) -> ApiResult<Answer<ImageView>> {
    let shown = RefreshImage {
        url: form.url.as_deref().map(without_password),
        ..form.clone()
    };
    let cx = once.without_secret(&format!("/api/v1/images/{id}/refresh"), &shown)?;
    refresh_set(app, cx, id, Some(form)).await
}

/// Have an image refreshed no more; a password in its URL is forgotten
#[utoipa::path(
    delete, path = "/images/{image_id}/refresh", tag = "image", operation_id = "stop_image_refresh",
    params(("image_id" = ImageId, Path)),
    responses(
        (status = 200, description = "Done", body = ImageView),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is being refreshed", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn stop_refresh(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<ImageId>,
) -> ApiResult<Answer<ImageView>> {
    refresh_set(app, cx, id, None).await
}

async fn refresh_set(
    app: App,
    cx: OpContext,
    id: ImageId,
    form: Option<RefreshImage>,
) -> ApiResult<Answer<ImageView>> {
    let engine = app.engine.clone();
    let image = app
        .detached(async move { engine.set_image_refresh(&cx, id, form.as_ref()).await })
        .await?;
    Ok(Answer(image))
}

/// Ask an image's source at once whether it has something new
///
/// What comes of it, the image tells: its event `image_refreshed`, or
/// `operation_failed`.
#[utoipa::path(
    post, path = "/images/{image_id}/refresh", tag = "image", operation_id = "refresh_image",
    params(("image_id" = ImageId, Path)),
    responses(
        (status = 202, description = "Accepted", body = ImageView),
        (status = 404, description = "No such image", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not refreshed, or just is", body = Problem, content_type = "application/problem+json"),
        Refusals,
    ),
)]
pub async fn refresh(
    State(app): State<App>,
    Once(cx): Once,
    Id(id): Id<ImageId>,
) -> ApiResult<(StatusCode, Answer<ImageView>)> {
    let engine = app.engine.clone();
    let image = app
        .detached(async move { engine.refresh_image(&cx, id).await })
        .await?;
    Ok((StatusCode::ACCEPTED, Answer(image)))
}

async fn act(
    app: App,
    cx: OpContext,
    id: ImageId,
    action: ImageAction,
) -> ApiResult<Answer<ImageView>> {
    let engine = app.engine.clone();
    let image = app
        .detached(async move { engine.act_on_image(&cx, id, action).await })
        .await?;
    Ok(Answer(image))
}
