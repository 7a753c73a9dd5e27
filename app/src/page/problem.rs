//! What a page shows when it cannot show what was asked for.

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::ErrorKind;

use vimana_ui::Prose;

use crate::api::ApiError;
use crate::session::CurrentSession;

#[component]
pub fn ProblemView(error: ApiError) -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let noticed = error.clone();
    Effect::new(move |_| session.notice(&noticed));
    let title = match error.kind() {
        ErrorKind::NotFound | ErrorKind::Malformed => "Not found",
        ErrorKind::Forbidden => "Not allowed",
        ErrorKind::Unauthenticated => "Signed out",
        ErrorKind::Unavailable => "Not available now",
        ErrorKind::Conflict
        | ErrorKind::OverQuota
        | ErrorKind::Stale
        | ErrorKind::TooLarge
        | ErrorKind::Invalid
        | ErrorKind::RateLimited
        | ErrorKind::Internal => "Something went wrong",
    };
    view! {
        <Title text=title/>
        <section class="problem" role="alert">
            <p class="problem-status">{error.0.status}</p>
            <h1>{title}</h1>
            <p><Prose text=error.sentence()/></p>
            <p><a href="/vms">"My VMs"</a></p>
        </section>
    }
    .into_any()
}
