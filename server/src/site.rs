//! The built portal's files.

use std::path::Path;

use anyhow::Context;
use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use tower_http::services::ServeDir;
use vimana_app::SiteAssets;

/// What `SITE/manifest.json` names.
pub fn assets(site: &Path) -> anyhow::Result<SiteAssets> {
    let manifest = site.join("manifest.json");
    let text = std::fs::read_to_string(&manifest)
        .with_context(|| format!("cannot read the site's {}", manifest.display()))?;
    Ok(SiteAssets::from_manifest(&text)?)
}

/// `SITE/assets`: names carry a hash, so each file is good for ever. The
/// compressed neighbours are sent to those who take them.
pub fn router(site: &Path) -> Router {
    let files = ServeDir::new(site.join("assets"))
        .precompressed_br()
        .precompressed_gzip()
        .append_index_html_on_directories(false);
    Router::new()
        .fallback_service(files)
        .layer(map_response(keep_for_ever))
}

async fn keep_for_ever(mut response: Response) -> Response {
    let value = if response.status().is_success() {
        "public, max-age=31536000, immutable"
    } else {
        "no-store"
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(value));
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}
