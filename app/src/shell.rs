//! The document around every page.

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use leptos::nonce::use_nonce;
use leptos::prelude::*;
use leptos_axum::ResponseOptions;
use leptos_meta::MetaTags;

use crate::assets::ASSETS_PATH;
use crate::theme::Theme;
use crate::{App, SiteAssets};

/// The whole document. Expects [`SiteAssets`] and the request in the context.
pub fn shell() -> impl IntoView {
    let theme =
        use_context::<Parts>().map_or(Theme::System, |parts| Theme::of_request(&parts.headers));
    let nonce = use_nonce()
        .map(|nonce| nonce.to_string())
        .unwrap_or_default();
    secure(&nonce);
    let Some(assets) = use_context::<SiteAssets>() else {
        return view! { <p>"The site is not built."</p> }.into_any();
    };
    let path = |name: &str| format!("{ASSETS_PATH}/{name}");
    view! {
        <!DOCTYPE html>
        <html lang="en" data-theme=theme.slug()>
            <head>
                <meta charset="utf-8"/>
                <meta name="viewport" content="width=device-width, initial-scale=1"/>
                <meta name="color-scheme" content="light dark"/>
                <link rel="stylesheet" href=path(&assets.css)/>
                <link rel="icon" type="image/svg+xml" href=path(&assets.icon)/>
                <link rel="modulepreload" href=path(&assets.js) nonce=nonce.clone()/>
                <link rel="modulepreload" href=path(&assets.loader) nonce=nonce.clone()/>
                <link rel="preload" r#as="fetch" r#type="application/wasm" crossorigin="anonymous" href=path(&assets.wasm)/>
                <script r#type="module" nonce=nonce inner_html=boot_script(&assets)></script>
                <MetaTags/>
            </head>
            <body>
                <App/>
            </body>
        </html>
    }
    .into_any()
}

/// Starts the browser's half. The names come from our own build and hold
/// nothing but letters, digits, `.` and `-`.
fn boot_script(assets: &SiteAssets) -> String {
    let SiteAssets {
        js,
        wasm,
        console_js,
        upload_js,
        loader: _,
        chunks: _,
        css: _,
        icon: _,
    } = assets;
    format!(
        "import init,{{hydrate}} from\"{ASSETS_PATH}/{js}\";\
         globalThis.vimana={{nonce:document.querySelector(\"script[nonce]\").nonce,\
         console:()=>import(\"{ASSETS_PATH}/{console_js}\"),\
         upload:()=>import(\"{ASSETS_PATH}/{upload_js}\")}};\
         await init({{module_or_path:\"{ASSETS_PATH}/{wasm}\"}});hydrate();"
    )
}

/// Headers that only a page's own render can make.
fn secure(nonce: &str) {
    let Some(response) = use_context::<ResponseOptions>() else {
        return;
    };
    let policy = format!(
        "default-src 'self'; \
         script-src 'nonce-{nonce}' 'strict-dynamic' 'wasm-unsafe-eval'; \
         style-src 'self' 'nonce-{nonce}'; \
         img-src 'self' data:; object-src 'none'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'"
    );
    let set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.insert_header(name, value);
        }
    };
    set(header::CONTENT_SECURITY_POLICY, &policy);
    // A page shows what one person may see, and has a nonce of its own.
    set(header::CACHE_CONTROL, "no-store");
}
