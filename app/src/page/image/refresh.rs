//! How often an image is refreshed, for those who may say so.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::image::{ImageState, ImageView, Origin, RefreshEvery, RefreshImage};
use vimana_ui::{Button, Choice, FormError, SelectField, Submit, ToastKind, Toasts, When, memo};

use crate::api::{ApiError, Key, once, refresh_image, set_image_refresh};
use crate::live::Live;
use crate::session::{Caller, CurrentSession};

#[component]
pub fn RefreshPanel(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let shown = {
        let image = image.clone();
        memo(move || {
            image.with(|image| {
                caller.may_change_image(image.tenant_id)
                    && image.state == ImageState::Ready
                    && image.superseded_at.is_none()
                    && matches!(image.origin, Origin::Url { .. })
            })
        })
    };
    view! {
        <When is=shown>
            <RefreshForm image=image.clone()/>
        </When>
    }
}

#[component]
fn RefreshForm(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let (live, session) = (expect_context::<Live>(), expect_context::<CurrentSession>());
    let toasts = expect_context::<Toasts>();
    let now = image.with_untracked(|image| image.refresh.as_ref().map(|found| found.every_seconds));
    let every = RwSignal::new(value(now));
    let busy = RwSignal::new(false);
    let refused = RwSignal::new(None::<ApiError>);
    let id = StoredValue::new(image.with_untracked(|image| image.id));
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        refused.set(None);
        let form = every.with_untracked(|every| every.parse().ok().and_then(chosen));
        let live = live.clone();
        let id = id.get_value();
        spawn_local(async move {
            let answer = once(Key::fresh(), |key| set_image_refresh(id, form.clone(), key));
            let answer = live.ask(answer).await;
            busy.try_set(false);
            match answer {
                Ok((asked, image)) => {
                    let text = said(&image);
                    live.adopt_image(asked, image);
                    toasts.show(ToastKind::Info, text);
                }
                Err(error) => {
                    session.notice(&error);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    let refreshed = {
        let image = image.clone();
        memo(move || image.with(|image| image.refresh.is_some()))
    };
    let (asks, askers) = (RwSignal::new(false), expect_context::<Live>());
    let ask = Callback::new(move |()| {
        if asks.get_untracked() {
            return;
        }
        asks.set(true);
        refused.set(None);
        let live = askers.clone();
        let id = id.get_value();
        spawn_local(async move {
            let answer = live
                .ask(once(Key::fresh(), |key| refresh_image(id, key)))
                .await;
            asks.try_set(false);
            match answer {
                Ok((asked, image)) => {
                    let text = format!("The source of {} is asked.", image.name);
                    live.adopt_image(asked, image);
                    toasts.show(ToastKind::Info, text);
                }
                Err(error) => {
                    session.notice(&error);
                    refused.try_set(Some(error));
                }
            }
        });
    });
    let error =
        Signal::derive(move || refused.with(|refused| refused.as_ref().map(ApiError::sentence)));
    view! {
        <section class="panel" aria-labelledby="refresh-title">
            <h2 id="refresh-title">"Keep it up to date"</h2>
            <form class="form" method="post" novalidate on:submit=submit>
                <SelectField
                    id="refresh"
                    label="Ask its source for something new"
                    hint="What is new takes the name. A password in the URL is kept for that, and shown to nobody."
                    choices=choices(now)
                    value=every
                />
                <FormError error=error/>
                <div class="form-answers">
                    <Submit label=Signal::derive(|| "Save".to_owned()) busy=busy/>
                    <When is=refreshed>
                        <Button
                            id="refresh-now"
                            label="Ask it now".to_owned()
                            blocked=Signal::derive(move || asks.get().then(|| "It is asked just now.".to_owned()))
                            on_press=ask
                        />
                    </When>
                </div>
            </form>
        </section>
    }
    .into_any()
}

/// What is offered, and what it is now.
fn choices(now: Option<RefreshEvery>) -> Vec<Choice> {
    let offered = ["daily", "weekly"].map(|text| text.parse::<RefreshEvery>().ok());
    let mut all: Vec<RefreshEvery> = offered.into_iter().flatten().chain(now).collect();
    all.sort_unstable();
    all.dedup();
    let never = Choice {
        value: value(None),
        text: "Never".to_owned(),
    };
    let every = all.into_iter().map(|every| Choice {
        value: value(Some(every)),
        text: format!("Every {every}"),
    });
    std::iter::once(never).chain(every).collect()
}

fn value(every: Option<RefreshEvery>) -> String {
    every.map_or_else(String::new, |every| every.seconds().to_string())
}

fn chosen(seconds: u64) -> Option<RefreshImage> {
    let every = RefreshEvery::new(seconds).ok()?;
    Some(RefreshImage {
        every_seconds: every.seconds(),
        url: None,
    })
}

fn said(image: &ImageView) -> String {
    let name = &image.name;
    match &image.refresh {
        Some(refresh) => format!("{name} is refreshed every {}.", refresh.every_seconds),
        None => format!("{name} is no longer refreshed."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_often_it_is_now_can_be_left_as_it_is() {
        let texts = |now: Option<&str>| {
            let now = now.map(|now| now.parse().unwrap());
            let offered = choices(now);
            assert!(offered.iter().any(|choice| choice.value == value(now)));
            let texts: Vec<String> = offered.into_iter().map(|choice| choice.text).collect();
            texts.join(", ")
        };
        assert_eq!(texts(None), "Never, Every 1 day, Every 7 days");
        assert_eq!(texts(Some("daily")), "Never, Every 1 day, Every 7 days");
        assert_eq!(
            texts(Some("36h")),
            "Never, Every 1 day, Every 36 hours, Every 7 days"
        );
    }
}
