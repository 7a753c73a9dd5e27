//! `/images?show=catalogue|trash`: what VMs are made from, and what is kept for
//! a while after it was deleted.

pub mod row;

use std::sync::Arc;

use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::hooks::use_query_map;
use vimana_model::ImageId;
use vimana_ui::{Each, EmptyState, Icon, IconName, Item, Table, When, flag, memo, part, text};

use super::image_actions::{ImageDesk, ImageDialogs};
use super::lazy::lazy_page;
use super::load::{Asked, Found, Loaded, Wanted};
use crate::api::ImageShow;
use crate::live::Live;
use crate::session::Caller;
use row::ImageRow;

lazy_page!(
    /// The catalogue of images, and the trash.
    ImagesPage in images = page, wants || Wanted::Images
);

fn page(asked: Asked) -> AnyView {
    let live = expect_context::<Live>();
    let again = live.clone();
    provide_context(ImageDesk::new());
    view! {
        <Title text="Images"/>
        <Loaded
            asked=asked
            show=Arc::new(move |_, asked, found| {
                let Found::Images(list) = found else {
                    return None;
                };
                live.open_images((asked, list));
                Some(view! { <Page/> }.into_any())
            })
            again=Arc::new(move |asked, found| {
                if let Found::Images(list) = found {
                    again.open_images((asked, list));
                }
            })
        />
        <ImageDialogs/>
    }
    .into_any()
}

#[component]
fn Page() -> impl IntoView {
    let query = use_query_map();
    let show = memo(move || query.with(|query| ImageShow::from_query(query.get_str("show"))));
    let (catalogue, trash) = (of(ImageShow::Catalogue), of(ImageShow::Trash));
    let ids = memo(move || match show.get() {
        ImageShow::Catalogue => catalogue.get(),
        ImageShow::Trash => trash.get(),
    });
    view! {
        <div class="page-head">
            <h1>"Images"</h1>
            <ImportButton/>
        </div>
        <Choices show=show catalogue=catalogue trash=trash/>
        <When
            is=Signal::derive(move || !ids.with(Vec::is_empty))
            otherwise=move || view! { <NothingYet show=show/> }
        >
            <Rows ids=ids/>
        </When>
    }
    .into_any()
}

/// The images that a list shows now, by name.
fn of(show: ImageShow) -> Memo<Vec<ImageId>> {
    let live = expect_context::<Live>();
    memo(move || {
        let mut ids = live.image_ids();
        ids.retain(|id| {
            let image = live.image(*id);
            image.is_some_and(|image| image.with(|image| show.takes(image.state)))
        });
        ids
    })
}

/// The way to the form, for those who may send it.
#[component]
fn ImportButton() -> impl IntoView {
    let caller = expect_context::<Caller>();
    (caller.may_import(false) || caller.may_import(true)).then(|| {
        view! {
            <a href="/images/new" class="button" data-kind="primary">
                <Icon name=IconName::Plus/>
                <span>"Import an image"</span>
            </a>
        }
    })
}

/// The catalogue or the trash, with how many are in each; the choice lives in
/// the address.
#[component]
fn Choices(
    show: Memo<ImageShow>,
    catalogue: Memo<Vec<ImageId>>,
    trash: Memo<Vec<ImageId>>,
) -> impl IntoView {
    let choices = ImageShow::ALL
        .into_iter()
        .map(|one| {
            let (address, ids) = match one {
                ImageShow::Catalogue => ("/images", catalogue),
                ImageShow::Trash => ("/images?show=trash", trash),
            };
            view! {
                <a class="segment" href=address aria-current=flag(move || show.get() == one)>
                    {one.title()} " " <span class="faint">{text(move || ids.with(Vec::len).to_string())}</span>
                </a>
            }
        })
        .map(IntoAny::into_any)
        .collect::<Vec<_>>();
    view! {
        <div class="toolbar">
            <nav class="segments" aria-label="Which images">{choices}</nav>
            {part(move || (show.get() == ImageShow::Trash).then(|| view! {
                <p class="faint">"Kept for a while after it was deleted. VMs made from it go on."</p>
            }))}
        </div>
    }
}

#[component]
fn Rows(ids: Memo<Vec<ImageId>>) -> impl IntoView {
    let live = expect_context::<Live>();
    let rows = Signal::derive(move || {
        let row = |id: ImageId| {
            let live = live.clone();
            Item::new(id, move || {
                live.image(id)
                    .map(|image| view! { <ImageRow image=image/> })
            })
        };
        ids.get().into_iter().map(row).collect()
    });
    view! {
        <Table caption="Images" columns=&["Name", "State", "Content", "For", "Used by", "Imported", "Actions"]>
            <Each items=rows/>
        </Table>
    }
}

#[component]
fn NothingYet(show: Memo<ImageShow>) -> impl IntoView {
    let caller = expect_context::<Caller>();
    part(move || {
        Some(match show.get() {
            ImageShow::Catalogue => {
                let text = if caller.may_import(false) {
                    "VMs are made from images. Import one: from the web, from an FTP or an NFS server."
                } else {
                    "VMs are made from images. Somebody with the operator role can import one."
                };
                view! {
                    <EmptyState title="No images yet" text=text>
                        <ImportButton/>
                    </EmptyState>
                }
                .into_any()
            }
            ImageShow::Trash => view! {
                <EmptyState
                    title="The trash is empty"
                    text="What is deleted from the catalogue lies here for a while and can be restored."
                />
            }
            .into_any(),
        })
    })
}
