//! Choosing a file of the reader's own.

use leptos::html;
use leptos::prelude::*;

use crate::field::{Field, described_by, invalid};

/// A file that was chosen.
#[derive(Clone, Debug)]
pub struct Picked {
    pub name: String,
    pub size_bytes: u64,
    #[cfg(feature = "hydrate")]
    file: std::sync::Arc<send_wrapper::SendWrapper<web_sys::File>>,
}

impl PartialEq for Picked {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.size_bytes == other.size_bytes
    }
}

#[cfg(feature = "hydrate")]
impl Picked {
    /// The browser's file.
    #[must_use]
    pub fn handle(&self) -> &web_sys::File {
        &self.file
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a size in bytes, below 2^53"
    )]
    fn of(input: &web_sys::HtmlInputElement) -> Option<Self> {
        let file = input.files()?.get(0)?;
        Some(Self {
            name: file.name(),
            size_bytes: file.size() as u64,
            file: std::sync::Arc::new(send_wrapper::SendWrapper::new(file)),
        })
    }
}

#[cfg(not(feature = "hydrate"))]
impl Picked {
    fn of<T>(_input: &T) -> Option<Self> {
        None
    }
}

/// One file, chosen or dropped here.
#[component]
pub fn FileField(
    id: &'static str,
    #[prop(into)] label: String,
    #[prop(into, optional)] hint: String,
    value: RwSignal<Option<Picked>>,
    #[prop(into, optional)] error: Signal<Option<String>>,
) -> impl IntoView {
    let node = NodeRef::<html::Input>::new();
    let take = move || {
        if let Some(input) = node.get_untracked() {
            value.set(Picked::of(&input));
        }
    };
    // What was chosen before the page was alive.
    Effect::new(move |_| {
        if node.get().is_some() {
            take();
        }
    });
    view! {
        <Field id=id.into() label=label hint=hint optional=false error=error>
            <input
                id=id
                class="input"
                r#type="file"
                required=true
                aria-invalid=invalid(error)
                aria-describedby=described_by(id.into(), error)
                node_ref=node
                on:change=move |_| take()
            />
        </Field>
    }
    .into_any()
}
