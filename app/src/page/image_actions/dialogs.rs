use leptos::prelude::*;
use vimana_model::image::ImageAction;
use vimana_ui::{Confirm, memo};

use super::desk::ImageDesk;

/// The question before what cannot be taken back.
#[component]
pub fn ImageDialogs() -> impl IntoView {
    let desk = expect_context::<ImageDesk>();
    let (open, close) = desk.opened();
    let asked = {
        let desk = desk.clone();
        memo(move || {
            desk.asked().map(|(action, image)| {
                let name = image.with_untracked(|image| image.name.to_string());
                (action, name)
            })
        })
    };
    let yes = Signal::derive(move || {
        asked
            .get()
            .map(|(action, name)| verb(action, &name))
            .unwrap_or_default()
    });
    let text = Signal::derive(move || {
        let action = asked.get().map(|(action, _)| action);
        action.map(warning).unwrap_or_default().to_owned()
    });
    view! {
        <Confirm
            id="sure-image"
            open=open
            on_close=close
            title=Signal::derive(move || format!("{}?", yes.get()))
            text=text
            yes=yes
            no="Keep it as it is"
            on_yes=Callback::new(move |()| desk.confirm())
        />
    }
}

fn verb(action: ImageAction, name: &str) -> String {
    match action {
        ImageAction::Purge => format!("Remove {name} for good"),
        ImageAction::Delete | ImageAction::Restore | ImageAction::Retry => {
            format!("{} {name}", action.title())
        }
    }
}

/// What is lost.
const fn warning(action: ImageAction) -> &'static str {
    match action {
        ImageAction::Delete => {
            "Its import ends, and what has come of it so far is removed. To have it after all, import it anew."
        }
        ImageAction::Purge => "Its content is deleted now. Nobody can bring it back.",
        ImageAction::Restore | ImageAction::Retry => "",
    }
}
