//! What surrounds every page behind the sign-in.

mod header;

use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::components::Outlet;
use leptos_router::hooks::{use_location, use_navigate};
use vimana_ui::{Clock, ToastRegion};

use crate::page::{VmDesk, VmDialogs};
use crate::session::CurrentSession;
use header::Bar;
pub use header::Mark;

/// The bar, the page, the questions. Pages make their resources outside of
/// every `Suspend`: inside one they would get other ids on the server than in
/// the browser.
#[component]
pub fn Frame() -> impl IntoView {
    provide_context(VmDesk::new());
    expect_context::<Clock>().run();
    view! {
        <a class="skip" href="#main">
            "Skip to the content"
        </a>
        <header class="header">
            <WhoeverIsSignedIn/>
        </header>
        <main id="main" tabindex="-1">
            <Outlet/>
        </main>
        <VmDialogs/>
        <ToastRegion/>
    }
    .into_any()
}

/// The bar's content, for who is signed in; leads everybody else to the
/// sign-in page.
#[component]
fn WhoeverIsSignedIn() -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let location = use_location();
    view! {
        <Transition fallback=|| ()>
            {move || Suspend::new(async move {
                match session.view.await {
                    Ok(Some(view)) => view! { <Bar view=view/> }.into_any(),
                    Ok(None) => {
                        let here = location.pathname.get_untracked()
                            + &search(&location.search.get_untracked());
                        view! { <GoTo url=sign_in_url(&here)/> }.into_any()
                    }
                    // The page below says it.
                    Err(_) => ().into_any(),
                }
            })}
        </Transition>
    }
    .into_any()
}

/// Leads to another page: by a redirect from the server, by navigation in the
/// browser. `url` is a path of this site.
#[component]
pub fn GoTo(url: String) -> impl IntoView {
    #[cfg(feature = "ssr")]
    crate::ssr::redirect(&url);
    let navigate = use_navigate();
    Effect::new(move |_| {
        navigate(
            &url,
            NavigateOptions {
                replace: true,
                ..NavigateOptions::default()
            },
        );
    });
}

fn search(search: &str) -> String {
    match search.trim_start_matches('?') {
        "" => String::new(),
        search => format!("?{search}"),
    }
}

/// The sign-in page that leads back to `here`.
fn sign_in_url(here: &str) -> String {
    let mut url = String::from("/sign-in?next=");
    for byte in here.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// Where to go after signing in: a path of this site and nothing else.
#[must_use]
pub fn safe_next(next: Option<&str>) -> String {
    next.filter(|next| {
        next.starts_with('/')
            && !next.starts_with("//")
            && !next.contains('\\')
            && !next.chars().any(char::is_control)
            && !next.starts_with("/sign-in")
    })
    .unwrap_or("/vms")
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_leads_back_to_pages_of_this_site_alone() {
        assert_eq!(safe_next(Some("/vms/new?x=1")), "/vms/new?x=1");
        for hostile in [
            "https://evil.example",
            "//evil.example",
            "/\\evil",
            "javascript:alert(1)",
            "",
            "/a\nb",
        ] {
            assert_eq!(safe_next(Some(hostile)), "/vms", "{hostile:?}");
        }
        assert_eq!(safe_next(None), "/vms");
    }

    #[test]
    fn the_way_back_survives_the_query_string() {
        assert_eq!(sign_in_url("/vms?q=a&b"), "/sign-in?next=/vms%3Fq%3Da%26b");
    }
}
