use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_meta::Title;
use leptos_router::NavigateOptions;
use leptos_router::hooks::{use_navigate, use_query_map};
use vimana_ui::{FormError, Submit, TextField};

use crate::api::{Password, sign_in};
use crate::frame::{GoTo, Mark, safe_next};
use crate::session::CurrentSession;

/// `/sign-in?next=PATH`
#[component]
pub fn SignInPage() -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let query = use_query_map();
    view! {
        <Title text="Sign in"/>
        <main id="main" class="alone">
            <Mark/>
            <h1>"Sign in to Vimana"</h1>
            <SignInForm/>
            <noscript>
                <p>"Signing in needs JavaScript and WebAssembly."</p>
            </noscript>
        </main>
        // Whoever is signed in already has no business here.
        <Transition fallback=|| ()>
            {move || Suspend::new(async move {
                matches!(session.view.await, Ok(Some(_))).then(|| {
                    let next = query.with_untracked(|query| safe_next(query.get_str("next")));
                    view! { <GoTo url=next/> }
                })
            })}
        </Transition>
    }
    .into_any()
}

#[component]
fn SignInForm() -> impl IntoView {
    let session = expect_context::<CurrentSession>();
    let query = use_query_map();
    let navigate = use_navigate();
    let user_name = RwSignal::new(String::new());
    let password = RwSignal::new(String::new());
    let busy = RwSignal::new(false);
    let error = RwSignal::new(None::<String>);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        error.set(None);
        let next = query.with_untracked(|query| safe_next(query.get_str("next")));
        let navigate = navigate.clone();
        let (name, secret) = (
            user_name.get_untracked(),
            Password(password.get_untracked()),
        );
        spawn_local(async move {
            let answer = sign_in(name, secret).await;
            busy.try_set(false);
            match answer {
                Ok(view) => {
                    session.set(view);
                    navigate(
                        &next,
                        NavigateOptions {
                            replace: true,
                            ..NavigateOptions::default()
                        },
                    );
                }
                Err(refused) => {
                    error.try_set(Some(refused.sentence()));
                }
            }
        });
    };
    view! {
        <form class="form" method="post" on:submit=submit>
            <TextField id="user_name" label="User name" autocomplete="username" autofocus=true value=user_name/>
            <TextField id="password" label="Password" secret=true autocomplete="current-password" value=password/>
            <FormError error=error/>
            <Submit
                label=Signal::derive(move || if busy.get() { "Signing in…" } else { "Sign in" }.to_owned())
                busy=busy
            />
        </form>
    }
    .into_any()
}
