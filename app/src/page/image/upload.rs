//! How the file is sent, while it is; and the way to go on.

use leptos::prelude::*;
use vimana_model::image::{ImageState, ImageView, Origin};
use vimana_model::operation::StepKind;
use vimana_ui::{FileField, Icon, IconName, Picked, memo, part};

use crate::page::amount;
use crate::session::Caller;
use crate::uploads::{Sending, Uploads};

/// What is still to come: the file's name and its size.
fn awaited(image: &ImageView) -> Option<(String, u64)> {
    let Origin::Upload {
        file_name,
        size_bytes,
        ..
    } = &image.origin
    else {
        return None;
    };
    let operation = image.operation.as_ref()?;
    let fetches = operation.current_step()?.kind == StepKind::Fetch;
    let here = operation.progress.map_or(0, |bytes| bytes.done_bytes);
    let waits = image.state == ImageState::Importing && fetches && here < *size_bytes;
    waits.then(|| (file_name.clone(), *size_bytes))
}

#[component]
pub fn UploadPanel(image: ArcRwSignal<ImageView>) -> impl IntoView {
    let uploads = expect_context::<Uploads>();
    let caller = expect_context::<Caller>();
    let (id, tenant) = image.with_untracked(|image| (image.id, image.tenant_id));
    let sending = {
        let uploads = uploads.clone();
        memo(move || uploads.of(id))
    };
    let awaited = memo(move || image.with(awaited));
    let picked = RwSignal::new(None::<Picked>);
    // Chosen again, it goes on: at once, since nothing is left to decide.
    Effect::new(move |_| {
        if let Some(file) = picked.get() {
            uploads.begin(id, file);
        }
    });
    let may_send = caller.may_change_image(tenant);
    part(move || {
        let (name, size) = awaited.get().filter(|_| may_send)?;
        let (text, again) = match sending.get() {
            Some(Sending::Going) => (
                "Being sent from here. Other pages of the portal can be looked at meanwhile; this tab must stay open.",
                false,
            ),
            Some(Sending::Waiting) => (
                "Nobody answers at the moment; it goes on by itself as soon as somebody does.",
                false,
            ),
            Some(Sending::Ended(why)) => (why, true),
            None => (
                "It is not sent from this tab. If it was broken off, choose the file again: it goes on where it was.",
                true,
            ),
        };
        let label = format!("The same file again: {name}, {}", amount(size));
        Some(view! {
            <section class="panel" data-tone="moving" aria-labelledby="upload-title">
                <h2 id="upload-title"><Icon name=IconName::Stop/> "Upload"</h2>
                <p role="status">{text}</p>
                {again.then(|| view! { <FileField id="again" label=label value=picked/> })}
            </section>
        })
    })
}
