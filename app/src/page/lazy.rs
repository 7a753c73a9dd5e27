//! Pages whose code comes when it is first wanted. What a page shows is asked for
//! at the same moment, not after.

use leptos::prelude::*;
use leptos::wasm_split::SplitLoaderError;
use vimana_model::{Error, ErrorKind};

use super::problem::ProblemView;
use crate::api::{ApiError, PAUSES, sleep};

/// A page's code did not come.
pub struct Missing;

impl From<SplitLoaderError> for Missing {
    fn from(_: SplitLoaderError) -> Self {
        Self
    }
}

/// Whether the page is still the one that the server wrote.
fn hydrating() -> bool {
    Owner::current_shared_context().is_some_and(|page| page.during_hydration())
}

/// Waits for the code of the page that the server wrote: nothing else may stand
/// in its place, so there is no giving up. Later, the way to another page must
/// not be held up here: a press on a further link meanwhile would be lost.
pub async fn prepared<F>(fetch: impl Fn() -> F)
where
    F: Future<Output = Result<(), SplitLoaderError>>,
{
    while hydrating() && !fetched(&fetch).await {}
}

/// Waits for a page's code; answers whether it came.
pub async fn fetched<F>(fetch: impl Fn() -> F) -> bool
where
    F: Future<Output = Result<(), SplitLoaderError>>,
{
    for pause in PAUSES {
        if fetch().await.is_ok() {
            return true;
        }
        sleep(pause).await;
    }
    fetch().await.is_ok()
}

/// The page, or that its code did not come.
pub fn shown(page: Result<AnyView, Missing>) -> AnyView {
    page.unwrap_or_else(|Missing| {
        let text = "this page cannot be loaded; check the connection and reload it";
        let error = ApiError::from(Error::new(ErrorKind::Unavailable, text));
        view! { <ProblemView error=error/> }.into_any()
    })
}

/// Has the browser fetch a chunk's parts together with the page that needs them.
#[cfg(feature = "ssr")]
pub fn announce(chunk: &str) {
    use crate::assets::{ASSETS_PATH, SiteAssets};
    use leptos_meta::Link;

    let parts = use_context::<SiteAssets>().and_then(|assets| assets.chunks.get(chunk).cloned());
    for part in parts.unwrap_or_default() {
        let href = format!("{ASSETS_PATH}/{part}");
        let link = view! {
            <Link rel="preload" as_="fetch" type_="application/wasm" crossorigin="anonymous" href=href/>
        };
        // Goes into the head of the document; here nothing of it is left.
        let _ = link.to_html();
    }
}

/// Declares a route whose page is loaded with `$chunk`: `$show` makes the page
/// out of what was asked for, `$wanted` says what that is.
macro_rules! lazy_page {
    ($(#[$doc:meta])* $route:ident in $chunk:ident = $show:path, wants $wanted:expr) => {
        $(#[$doc])*
        pub struct $route($crate::page::load::Asked);

        const _: () = {
            use leptos::prelude::AnyView;
            use $crate::page::lazy::{self, Missing};
            use $crate::page::load::Asked;

            #[leptos::wasm_split::wasm_split(
                $chunk,
                wasm_split_path = leptos::wasm_split,
                preload(fetch),
                fallible
            )]
            fn split_page(asked: Asked) -> Result<AnyView, Missing> {
                Ok($show(asked))
            }

            impl leptos_router::LazyRoute for $route {
                fn data() -> Self {
                    #[cfg(feature = "ssr")]
                    lazy::announce(stringify!($chunk));
                    Self(Asked::new($wanted))
                }

                async fn view(this: Self) -> AnyView {
                    lazy::fetched(fetch).await;
                    lazy::shown(split_page(this.0).await)
                }

                async fn preload() {
                    lazy::prepared(fetch).await;
                }
            }
        };
    };
}

pub(crate) use lazy_page;
