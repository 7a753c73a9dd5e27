//! What can be done with one image, in its row and on its page: what makes sense
//! now as buttons, and everything in a menu, each with what it does or why not
//! now.

mod desk;
mod dialogs;

use leptos::prelude::*;
use vimana_model::image::{ImageAction, ImageState, ImageView};
use vimana_ui::{Button, ButtonKind, Each, IconName, Item, Menu, MenuItem, memo};

use super::sentence;
use crate::session::Caller;
pub use desk::ImageDesk;
pub use dialogs::ImageDialogs;

/// Everything, in the order of the menu: what cannot be undone, last.
const MENU: [ImageAction; 4] = [
    ImageAction::Retry,
    ImageAction::Restore,
    ImageAction::Delete,
    ImageAction::Purge,
];

/// What one most likely wants now; the way on first.
const fn likely(state: ImageState) -> &'static [ImageAction] {
    match state {
        ImageState::Importing | ImageState::Ready => &[ImageAction::Delete],
        ImageState::Failed => &[ImageAction::Retry, ImageAction::Delete],
        ImageState::Trashed => &[ImageAction::Restore, ImageAction::Purge],
        ImageState::Removed => &[],
    }
}

const fn icon(action: ImageAction) -> IconName {
    match action {
        ImageAction::Delete => IconName::Trash,
        ImageAction::Restore => IconName::Undo,
        ImageAction::Purge => IconName::Cross,
        ImageAction::Retry => IconName::Retry,
    }
}

/// What it does, for who has not used it yet.
const fn meaning(action: ImageAction) -> &'static str {
    match action {
        ImageAction::Delete => {
            "put it in the trash, from where it can be restored for a while; an import ends at once"
        }
        ImageAction::Restore => "take it out of the trash: VMs can be made from it again",
        ImageAction::Purge => "remove its content now; nobody can bring it back",
        ImageAction::Retry => "fetch it from the same place once more",
    }
}

const fn kind(action: ImageAction, compact: bool) -> ButtonKind {
    match action {
        ImageAction::Delete | ImageAction::Purge => ButtonKind::Danger,
        ImageAction::Restore | ImageAction::Retry if !compact => ButtonKind::Primary,
        ImageAction::Restore | ImageAction::Retry => ButtonKind::Plain,
    }
}

#[component]
pub fn ImageActions(
    image: ArcRwSignal<ImageView>,
    /// Icons alone.
    #[prop(optional)]
    compact: bool,
) -> impl IntoView {
    let shown = {
        let image = image.clone();
        memo(move || image.with(|image| likely(image.state)))
    };
    let buttons = {
        let image = image.clone();
        Signal::derive(move || {
            let button = |action: &ImageAction| {
                let (image, action) = (image.clone(), *action);
                Item::new(
                    action,
                    move || view! { <Now image=image.clone() action=action compact=compact/> },
                )
            };
            shown.get().iter().map(button).collect()
        })
    };
    view! {
        <div class="actions" role="group" aria-label="Actions">
            <Each items=buttons/>
            <Everything image=image compact=compact/>
        </div>
    }
    .into_any()
}

/// Why the action is not possible now.
fn blocked(image: &ArcRwSignal<ImageView>, action: ImageAction) -> Memo<Option<String>> {
    let caller = expect_context::<Caller>();
    let image = image.clone();
    memo(move || image.with(|image| caller.image_refusal(action, image)))
}

fn pressed(
    image: ArcRwSignal<ImageView>,
    action: ImageAction,
    busy: RwSignal<bool>,
) -> Callback<()> {
    let desk = expect_context::<ImageDesk>();
    Callback::new(move |()| desk.press(action, &image, busy))
}

#[component]
fn Now(image: ArcRwSignal<ImageView>, action: ImageAction, compact: bool) -> impl IntoView {
    let busy = RwSignal::new(false);
    let (id, name) = image.with_untracked(|image| (image.id, image.name.to_string()));
    let label = if compact {
        format!("{} {name}", action.title())
    } else {
        action.title().to_owned()
    };
    view! {
        <Button
            id=format!("{}-{id}", action.name())
            label=label
            blocked=blocked(&image, action)
            on_press=pressed(image, action, busy)
            kind=kind(action, compact)
            icon=icon(action)
            icon_only=compact
            busy=busy
        />
    }
}

#[component]
fn Everything(image: ArcRwSignal<ImageView>, compact: bool) -> impl IntoView {
    let (id, name) = image.with_untracked(|image| (image.id, image.name.to_string()));
    let menu = format!("menu-{id}");
    let label = if compact {
        format!("All actions on {name}")
    } else {
        "All actions".to_owned()
    };
    let items = menu.clone();
    view! {
        <Menu id=menu label=label icon=IconName::More icon_only=compact>
            {MENU
                .into_iter()
                .enumerate()
                .map(|(n, action)| {
                    let (image, menu) = (image.clone(), items.clone());
                    view! { <Entry image=image action=action menu=menu first=n == 0/> }
                })
                .map(IntoAny::into_any)
                .collect::<Vec<_>>()}
        </Menu>
    }
}

#[component]
fn Entry(
    image: ArcRwSignal<ImageView>,
    action: ImageAction,
    menu: String,
    first: bool,
) -> impl IntoView {
    view! {
        <MenuItem
            id=format!("{menu}-{}", action.name())
            menu=menu
            label=action.title()
            icon=icon(action)
            note=sentence(meaning(action))
            blocked=blocked(&image, action)
            danger=action == ImageAction::Purge
            first=first
            on_press=pressed(image, action, RwSignal::new(false))
        />
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_as_a_button_is_accepted_in_the_state() {
        for state in ImageState::ALL {
            for action in likely(state) {
                assert_eq!(action.judge(state), Ok(()), "{action} in {state}");
            }
        }
    }

    #[test]
    fn the_menu_holds_every_action_once() {
        let mut menu = MENU;
        menu.sort_unstable();
        let mut all = ImageAction::ALL;
        all.sort_unstable();
        assert_eq!(menu, all);
    }
}
