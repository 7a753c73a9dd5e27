//! Files on their way from this tab. They go on while one looks at other pages,
//! so they live at the top.

use std::collections::BTreeMap;

use leptos::prelude::*;
use vimana_model::ImageId;
use vimana_ui::Picked;

/// How an upload goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "hydrate"),
    expect(dead_code, reason = "the browser sends files")
)]
pub enum Sending {
    Going,
    /// Nobody answers; it is tried again.
    Waiting,
    /// It ended early, for this reason.
    Ended(&'static str),
}

#[derive(Clone)]
pub struct Uploads(ArcRwSignal<BTreeMap<ImageId, Sending>>);

impl Uploads {
    pub fn provide() {
        provide_context(Self(ArcRwSignal::new(BTreeMap::new())));
    }

    /// How the image's file is sent from here, if it is.
    #[must_use]
    pub fn of(&self, id: ImageId) -> Option<Sending> {
        self.0.with(|sending| sending.get(&id).cloned())
    }

    /// Sends the file, from where its upload stands.
    pub fn begin(&self, id: ImageId, file: Picked) {
        #[cfg(feature = "hydrate")]
        {
            self.note(id, Some(Sending::Going));
            browser::begin(self.clone(), id, file);
        }
        #[cfg(not(feature = "hydrate"))]
        let _ = (id, file);
    }

    /// Ends all of them and forgets them: another user may come.
    pub fn leave(&self) {
        if self.0.with_untracked(BTreeMap::is_empty) {
            return;
        }
        #[cfg(feature = "hydrate")]
        browser::stop();
        self.0.set(BTreeMap::new());
    }

    #[cfg(feature = "hydrate")]
    fn note(&self, id: ImageId, now: Option<Sending>) {
        if self
            .0
            .with_untracked(|sending| sending.get(&id) == now.as_ref())
        {
            return;
        }
        self.0.update(|sending| {
            match now {
                Some(now) => sending.insert(id, now),
                None => sending.remove(&id),
            };
        });
    }
}

/// This side of `app/js/upload.js`.
#[cfg(feature = "hydrate")]
mod browser {
    use js_sys::{Function, Promise};
    use leptos::task::spawn_local;
    use vimana_model::ImageId;
    use vimana_ui::Picked;
    use wasm_bindgen::closure::Closure;
    use wasm_bindgen::{JsCast as _, JsValue};
    use wasm_bindgen_futures::JsFuture;

    use super::{Sending, Uploads};
    use crate::glue;

    pub fn begin(uploads: Uploads, id: ImageId, file: Picked) {
        spawn_local(async move {
            if send(&uploads, id, &file).await.is_err() {
                uploads.note(id, Some(Sending::Ended(NOT_LOADED)));
            }
        });
    }

    pub fn stop() {
        spawn_local(async {
            // What never began needs no end.
            if let Ok(module) = glue::module("upload").await
                && let Ok(stop) = glue::get::<Function>(&module, "stop")
            {
                let _ = stop.call0(&module);
            }
        });
    }

    async fn send(uploads: &Uploads, id: ImageId, file: &Picked) -> Result<(), JsValue> {
        let module = glue::module("upload").await?;
        let told = uploads.clone();
        let report = Closure::<dyn FnMut(String, u16)>::new(move |how: String, status| {
            told.note(id, read(&how, status));
        });
        let path = format!("/api/v1/images/{id}/content");
        let send = glue::get::<Function>(&module, "send")?;
        let over = send.call3(&module, &path.into(), file.handle(), report.as_ref())?;
        // The callback lives until then.
        JsFuture::from(over.dyn_into::<Promise>()?).await?;
        Ok(())
    }

    const NOT_LOADED: &str = "The file could not be sent; reload the page.";

    fn read(how: &str, status: u16) -> Option<Sending> {
        Some(match (how, status) {
            ("sending", _) => Sending::Going,
            ("waiting", _) => Sending::Waiting,
            ("other", _) => Sending::Ended(
                "This is another file than the upload was begun with: it has another size.",
            ),
            ("unreadable", _) => {
                Sending::Ended("The file cannot be read any more; perhaps it was moved or changed.")
            }
            ("refused", 401) => Sending::Ended("You are signed out; sign in and choose it again."),
            ("refused", 403) => Sending::Ended("Your role does not let you send it."),
            // It is through, or nobody wants it any more: the image itself says.
            _ => return None,
        })
    }
}
