use leptos::prelude::*;
use vimana_model::image::{ImageState, ImageView};
use vimana_ui::{Badge, Cell, Prose, Time, Until, memo, part, text};

use crate::page::image_actions::ImageActions;
use crate::page::operations::Moved;
use crate::page::{amount, image_tone, sentence};

/// One image. Made once; an event patches the cells it changes.
#[component]
pub fn ImageRow(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let fixed = image.get_untracked();
    let kept = image.clone();
    let image = RwSignal::from(image);
    let fact = move |get: fn(&ImageView) -> String| {
        let shown = memo(move || image.with(get));
        text(move || shown.get())
    };
    let name = fixed.name.to_string();
    let (row_name, bar_name) = (name.clone(), name);
    let by = fixed.owner.map(|owner| format!("by {owner}"));
    view! {
        <tr role="row" data-image=row_name>
            <Cell title="Name">
                <a href=format!("/images/{}", fixed.id) class="name">{fact(|image| image.name.to_string())}</a>
            </Cell>
            <Cell title="State">
                <Condition image=image name=bar_name/>
            </Cell>
            <Cell title="Content">
                {fact(stored)}
                <span class="why">{fact(disk)}</span>
            </Cell>
            <Cell title="For">{for_whom(fixed.tenant_id.is_none())}</Cell>
            <Cell title="Used by">{fact(|image| used_by(image.used_by))}</Cell>
            <Cell title="Imported">
                <Time at_ms=fixed.created_at.as_ms()/>
                <span class="why">{by}</span>
            </Cell>
            <Cell title="Actions"><ImageActions image=kept compact=true/></Cell>
        </tr>
    }
    .into_any()
}

fn stored(image: &ImageView) -> String {
    let content = image.content.as_ref();
    content.map_or_else(
        || "–".to_owned(),
        |content| format!("{}, {}", content.format, amount(content.size_bytes)),
    )
}

fn disk(image: &ImageView) -> String {
    let content = image.content.as_ref();
    content
        .map(|content| format!("disk of {}", content.virtual_mib))
        .unwrap_or_default()
}

/// For everybody or for the reader's own.
pub const fn for_whom(public: bool) -> &'static str {
    if public { "all tenants" } else { "your tenant" }
}

/// How many VMs are made from it, as far as the reader may see them.
pub fn used_by(count: Option<u32>) -> String {
    match count {
        None | Some(0) => "no VM".to_owned(),
        Some(1) => "1 VM".to_owned(),
        Some(count) => format!("{count} VMs"),
    }
}

/// How it is, how far its import is, why it failed, when it goes.
#[component]
fn Condition(image: RwSignal<ImageView>, name: String) -> impl IntoView {
    let state = memo(move || image.with(|image| image.state));
    let progress =
        memo(move || image.with(|image| image.operation.as_ref().and_then(|now| now.progress)));
    let moves = memo(move || state.get() == ImageState::Importing && progress.get().is_some());
    let failure = memo(move || image.with(|image| image.failure.clone()));
    let purge_at = memo(move || image.with(|image| image.purge_at));
    view! {
        <Badge
            tone=Signal::derive(move || image_tone(state.get()))
            text=Signal::derive(move || state.get().name().to_owned())
        />
        {part(move || moves.get().then(|| view! { <Moved label=format!("Import of {name}") progress=progress/> }))}
        {part(move || failure.get().map(|why| view! { <span class="why"><Prose text=sentence(&why)/></span> }))}
        {part(move || purge_at.get().map(|at| view! {
            <span class="why">"gone for good " <Until at_ms=at.as_ms()/></span>
        }))}
    }
}
