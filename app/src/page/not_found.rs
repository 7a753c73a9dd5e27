use leptos::prelude::*;
use leptos_meta::Title;

use crate::frame::Mark;

/// No such page, for those who are signed in and for those who are not.
#[component]
pub fn NotFoundPage() -> impl IntoView {
    #[cfg(feature = "ssr")]
    crate::ssr::set_status(404);
    view! {
        <Title text="Not found"/>
        <main id="main" class="alone">
            <Mark/>
            <section class="problem">
                <p class="problem-status">"404"</p>
                <h1>"Not found"</h1>
                <p>"There is no such page."</p>
                <p><a href="/vms">"My VMs"</a></p>
            </section>
        </main>
    }
    .into_any()
}
