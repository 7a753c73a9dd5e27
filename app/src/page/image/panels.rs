//! What an image's page says of it.

use leptos::prelude::*;
use vimana_model::image::{Fetched, ImageContent, ImageView, Origin, RefreshView};
use vimana_ui::{Badge, Icon, IconName, Prose, Time, Tone, Until, memo, part, text};

use crate::page::images::row::{for_whom, used_by};
use crate::page::{amount, sentence};

fn row(title: &'static str, value: impl IntoAny) -> AnyView {
    view! {
        <div>
            <dt>{title}</dt>
            <dd>{value.into_any()}</dd>
        </div>
    }
    .into_any()
}

/// Where it came from, and whether it is what was promised.
#[component]
pub fn Provenance(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let fixed = image.get_untracked();
    let refresh = {
        let image = image.clone();
        memo(move || image.with(|image| image.refresh.clone()))
    };
    let superseded = {
        let image = image.clone();
        memo(move || image.with(|image| image.superseded_at))
    };
    let fetched = memo(move || image.with(|image| image.origin.fetched().cloned()));
    let from = match &fixed.origin {
        Origin::Url { url, .. } => view! { <code>{url.clone()}</code> }.into_any(),
        Origin::File { path, .. } => {
            view! { "the server's own file " <code>{path.clone()}</code> }.into_any()
        }
        Origin::Backup {
            backup, vm, disk, ..
        } => view! {
            {disk.clone()} " of " {vm.clone()} ", as backup " <code>{backup.clone()}</code> " has it"
        }
        .into_any(),
        Origin::Volume { name, clone, .. } => view! {
            "what was on volume " <code>{name.to_string()}</code>
            {clone.as_ref().map(|clone| view! { ", for its clone " <code>{clone.to_string()}</code> }.into_any())}
        }
        .into_any(),
        Origin::Upload {
            file_name,
            size_bytes,
            ..
        } => view! {
            "the uploaded file " <code>{file_name.clone()}</code> ", " {amount(*size_bytes)}
        }
        .into_any(),
    };
    view! {
        <section class="panel" aria-labelledby="provenance-title">
            <h2 id="provenance-title">"Where it comes from"</h2>
            <dl class="facts">
                {row("From", from)}
                {part(move || fetched.get().map(|fetched| view! { <Came fetched=fetched/> }))}
                {row("Asked for by", fixed.owner.unwrap_or_else(|| "the operator of this installation".to_owned()))}
                {row("Asked for", view! { <Time at_ms=fixed.created_at.as_ms()/> })}
                {row("For", for_whom(fixed.tenant_id.is_none()))}
                {part(move || refresh.get().map(|refresh| view! { <Refreshed refresh=refresh/> }))}
                {part(move || superseded.get().map(|at| row("Replaced", view! {
                    <Time at_ms=at.as_ms()/>
                    <span class="why">"Something newer from there has its name. It goes into the trash once no VM is made from it."</span>
                })))}
            </dl>
        </section>
    }
    .into_any()
}

/// How it is kept up to date.
#[component]
fn Refreshed(refresh: RefreshView) -> impl IntoView {
    let RefreshView {
        every_seconds,
        next_at,
        last_at,
        failure,
    } = refresh;
    view! {
        {row("Refreshed", format!("every {every_seconds}"))}
        {last_at.map(|at| row("Last up to date", view! { <Time at_ms=at.as_ms()/> }))}
        {failure.map(|failure| row("Not since", view! {
            <Badge tone=Signal::derive(|| Tone::Bad) text=Signal::derive(|| "failed".to_owned())/>
            <span class="why"><Prose text=sentence(&failure)/></span>
        }))}
        {next_at.map(|at| row("Asked next", view! { <Until at_ms=at.as_ms()/> }))}
    }
}

/// What came from there.
#[component]
fn Came(fetched: Fetched) -> impl IntoView {
    let Fetched {
        size_bytes,
        checksum,
        verified,
    } = fetched;
    let (tone, word, why) = if verified {
        (
            Tone::Good,
            "verified",
            "It is the one that was given with the import.",
        )
    } else {
        (
            Tone::Resting,
            "not verified",
            "None was given with the import to compare it with.",
        )
    };
    view! {
        {row("Size", amount(size_bytes))}
        {row("Checksum", view! {
            <Badge tone=Signal::derive(move || tone) text=Signal::derive(move || word.to_owned())/>
            <span class="why">{why}</span>
            <code class="id">{checksum}</code>
        })}
    }
}

/// What VMs get, and how many have it.
#[component]
pub fn Content(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let id = image.with_untracked(|image| image.id.to_string());
    let content = {
        let image = image.clone();
        memo(move || image.with(|image| image.content.clone()))
    };
    let users = memo(move || image.with(|image| used_by(image.used_by)));
    view! {
        <section class="panel" aria-labelledby="content-title">
            <h2 id="content-title">"Content"</h2>
            <dl class="facts">
                {part(move || Some(match content.get() {
                    Some(content) => view! { <Stored content=content/> }.into_any(),
                    None => row("Stored", "nothing"),
                }))}
                {row("Used by", text(move || users.get()))}
                {row("Id", view! { <code class="id">{id}</code> })}
            </dl>
        </section>
    }
    .into_any()
}

#[component]
fn Stored(content: ImageContent) -> impl IntoView {
    let ImageContent {
        format,
        size_bytes,
        virtual_mib,
        sha256,
    } = content;
    view! {
        {row("Format", format.name())}
        {row("Stored", amount(size_bytes))}
        {row("Disk", format!("{virtual_mib}, as a guest sees it"))}
        {row("SHA-256", view! { <code class="id">{sha256}</code> })}
    }
}

#[component]
pub fn FailurePanel(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let failure = memo(move || image.with(|image| image.failure.clone()));
    part(move || {
        failure.get().map(|failure| {
            view! {
                <section class="panel" data-tone="bad" role="alert" aria-labelledby="failure-title">
                    <h2 id="failure-title"><Icon name=IconName::Warning/> "It was not imported"</h2>
                    <p><Prose text=sentence(&failure)/></p>
                    <p class="faint">"Import it again once the cause is mended, or delete it. The reason stays in the timeline."</p>
                </section>
            }
        })
    })
}

#[component]
pub fn TrashPanel(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let purge_at = {
        let image = image.clone();
        memo(move || image.with(|image| image.purge_at))
    };
    let users = memo(move || image.with(|image| image.used_by.filter(|users| *users > 0)));
    part(move || {
        purge_at.get().map(|at| {
            view! {
                <section class="panel" aria-labelledby="trash-title">
                    <h2 id="trash-title"><Icon name=IconName::Trash/> "In the trash"</h2>
                    <p>"It goes for good " <Until at_ms=at.as_ms()/> ", unless VMs are still made from it then. Until then it can be restored."</p>
                    {part(move || users.get().map(|users| view! {
                        <p class="faint">{used_by(Some(users))} " made from it go on, and keep it from being removed."</p>
                    }))}
                </section>
            }
        })
    })
}
