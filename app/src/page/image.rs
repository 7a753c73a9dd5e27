//! `/images/:id`: one image: where it came from, what it is, what happens to it.

mod panels;
mod refresh;
mod upload;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use vimana_model::image::{ImageState, ImageView};
use vimana_ui::{Badge, Icon, IconName, Time, When, memo, text};

use super::image_actions::{ImageActions, ImageDesk, ImageDialogs};
use super::image_tone;
use super::lazy::lazy_page;
use super::load::{Asked, Found, FoundImage, Loaded, Wanted, id_in_address};
use super::operations::Operations;
use super::timeline::Timeline;
use crate::live::{About, History, Live, Mark};
use crate::session::Caller;
use panels::{Content, FailurePanel, Provenance, TrashPanel};
use refresh::RefreshPanel;
use upload::UploadPanel;

lazy_page!(
    /// One image.
    ImagePage in images = page, wants {
        let id = id_in_address();
        move || Wanted::Image(id.get())
    }
);

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    provide_context(ImageDesk::new());
    view! {
        <Loaded
            asked=asked
            show=Arc::new(move |_, asked, found| {
                let (image, history) = take_in(&live, asked, found)?;
                Some(view! { <Page image=image history=history/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                take_in(&again, asked, found);
            })
        />
        <ImageDialogs/>
    }
    .into_any()
}

fn take_in(live: &Live, asked: Mark, found: Found) -> Option<(ArcRwSignal<ImageView>, History)> {
    let Found::Image(found) = found else {
        return None;
    };
    let FoundImage {
        image,
        events,
        operations,
    } = *found;
    let about = About::Image(image.id);
    let image = live.adopt_image(asked, image);
    let newest = image.with_untracked(|image| image.operation.clone());
    Some((image, live.open_history(about, events, operations, newest)))
}

#[component]
fn Page(image: ArcRwSignal<ImageView>, history: History) -> impl IntoView {
    let (name, tenant) = image.with_untracked(|image| (image.name.to_string(), image.tenant_id));
    view! {
        <Title text=name/>
        <Head image=image.clone()/>
        <div class="vm">
            <div class="vm-main">
                <FailurePanel image=image.clone()/>
                <TrashPanel image=image.clone()/>
                <UploadPanel image=image.clone()/>
                <Provenance image=image.clone()/>
                <RefreshPanel image=image.clone()/>
                <Operations operations=history.operations tenant=tenant/>
            </div>
            <div class="vm-side">
                <Content image=image/>
                <Timeline events=history.events/>
            </div>
        </div>
    }
    .into_any()
}

#[component]
fn Head(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let name = {
        let image = image.clone();
        memo(move || image.with(|image| image.name.to_string()))
    };
    let state = {
        let image = image.clone();
        memo(move || image.with(|image| image.state))
    };
    let since = {
        let image = image.clone();
        Signal::derive(move || image.with(|image| image.state_since.as_ms()))
    };
    // Whatever has that name by then.
    let new_vm = format!("/vms/new?image={}", name.get_untracked());
    let content = image.with_untracked(|image| format!("/api/v1/images/{}/content", image.id));
    let may_create = caller.may_create();
    let new_title = caller.new_title();
    view! {
        <div class="page-head">
            <div>
                <p class="crumb"><a href="/images">"Images"</a></p>
                <h1>{text(move || name.get())}</h1>
                <p class="state-line" role="status">
                    <Badge
                        tone=Signal::derive(move || image_tone(state.get()))
                        text=Signal::derive(move || state.get().name().to_owned())
                    />
                    <span>{text(move || state.get().meaning())}</span>
                    <span class="faint"><Time at_ms=since/></span>
                </p>
            </div>
            <div class="actions">
                <When is=Signal::derive(move || may_create && state.get() == ImageState::Ready)>
                    <a href=new_vm.clone() class="button" data-kind="primary">
                        <Icon name=IconName::Plus/>
                        <span>{new_title}</span>
                    </a>
                </When>
                <When is=Signal::derive(move || state.get() == ImageState::Ready)>
                    <a href=content.clone() rel="external" download class="button" data-kind="plain">
                        <Icon name=IconName::Download/>
                        <span>"Download"</span>
                    </a>
                </When>
                <ImageActions image=image/>
            </div>
        </div>
    }
}
