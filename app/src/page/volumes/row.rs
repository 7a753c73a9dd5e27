use leptos::prelude::*;
use vimana_model::volume::{VolumeAction, VolumeView};
use vimana_ui::{Badge, Button, ButtonKind, Cell, IconName, Time, memo, part, text};

use super::{Question, Questions};
use crate::page::volume::{condition, datastore, missing, refusal};
use crate::session::Caller;

/// One volume. Made once; an event patches the cells it changes.
#[component]
pub fn VolumeRow(volume: ArcRwSignal<VolumeView>, questions: Questions) -> impl IntoView {
    let fixed = volume.get_untracked();
    let volume = RwSignal::from(volume);
    let fact = move |get: fn(&VolumeView) -> String| {
        let shown = memo(move || volume.with(get));
        text(move || shown.get())
    };
    let state = memo(move || volume.with(condition));
    let vm = memo(move || volume.with(|volume| volume.vm.clone()));
    let name = fixed.name.to_string();
    let row_name = name.clone();
    let from = fixed.image.as_ref();
    let from = from.map(|image| format!("began as image {image}"));
    view! {
        <tr role="row" data-volume=row_name>
            <Cell title="Name">
                <span class="name">{name}</span>
                {from.map(|from| view! { <span class="why">{from}</span> }.into_any())}
            </Cell>
            <Cell title="State">
                <Badge
                    tone=Signal::derive(move || state.get().0)
                    text=Signal::derive(move || state.get().1.to_owned())
                />
                <span class="why">{fact(with_vm)}</span>
                <span class="why">{fact(missing)}</span>
            </Cell>
            <Cell title="Size">{fact(|volume| volume.size_mib.to_string())}</Cell>
            <Cell title="VM">
                {part(move || Some(match vm.get() {
                    Some(vm) => view! { <a href=format!("/vms/{}", vm.id)>{vm.name.to_string()}</a> }.into_any(),
                    None => view! { "–" }.into_any(),
                }))}
            </Cell>
            <Cell title="Host">
                {fact(place)}
                <span class="why">{fact(datastore)}</span>
            </Cell>
            <Cell title="Made">
                <Time at_ms=fixed.created_at.as_ms()/>
                <span class="why">{format!("by {}", fixed.owner)}</span>
            </Cell>
            <Cell title="Actions">
                <div class="actions" role="group" aria-label="Actions">
                    {Deed::ALL
                        .map(|deed| view! { <Act volume=volume questions=questions deed=deed/> }.into_any())
                        .into_iter()
                        .collect::<Vec<_>>()}
                </div>
            </Cell>
        </tr>
    }
    .into_any()
}

fn with_vm(volume: &VolumeView) -> String {
    let goes = volume.delete_with_vm;
    if goes { "goes with its VM" } else { "" }.to_owned()
}

/// Where its bytes are.
fn place(volume: &VolumeView) -> String {
    let host = volume.host.as_ref();
    host.map_or_else(|| "–".to_owned(), |host| host.name.clone())
}

/// What a button is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Attach,
    Grow,
    Move,
    Copy,
    Clone,
    Delete,
}

impl Deed {
    const ALL: [Self; 6] = [
        Self::Attach,
        Self::Grow,
        Self::Move,
        Self::Copy,
        Self::Clone,
        Self::Delete,
    ];

    const fn action(self) -> VolumeAction {
        match self {
            Self::Attach => VolumeAction::Attach,
            Self::Grow => VolumeAction::Grow,
            Self::Move => VolumeAction::Move,
            Self::Copy | Self::Clone => VolumeAction::Copy,
            Self::Delete => VolumeAction::Delete,
        }
    }

    fn label(self, name: &str) -> String {
        match self {
            Self::Attach => format!("Attach {name} to a VM"),
            Self::Grow => format!("Make {name} larger"),
            Self::Move => format!("Move {name} to another datastore"),
            Self::Copy => format!("Make an image of {name}"),
            Self::Clone => format!("Clone {name}"),
            Self::Delete => format!("Delete {name}"),
        }
    }

    const fn icon(self) -> IconName {
        match self {
            Self::Attach => IconName::Plus,
            Self::Grow => IconName::Resize,
            Self::Move => IconName::Move,
            Self::Copy => IconName::Camera,
            Self::Clone => IconName::Paste,
            Self::Delete => IconName::Trash,
        }
    }

    const fn slug(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Grow => "grow",
            Self::Move => "move",
            Self::Copy => "copy",
            Self::Clone => "clone",
            Self::Delete => "delete",
        }
    }

    const fn question(self, volume: VolumeView) -> Question {
        match self {
            Self::Attach => Question::Attach(volume),
            Self::Grow => Question::Grow(volume),
            Self::Move => Question::Move(volume),
            Self::Copy => Question::Copy(volume),
            Self::Clone => Question::Clone(volume),
            Self::Delete => Question::Delete(volume),
        }
    }
}

/// A button that opens its question.
#[component]
fn Act(volume: RwSignal<VolumeView>, questions: Questions, deed: Deed) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let (id, name) = volume.with_untracked(|volume| (volume.id, volume.name.to_string()));
    let kind = if deed == Deed::Delete {
        ButtonKind::Danger
    } else {
        ButtonKind::Plain
    };
    let blocked = memo(move || volume.with(|volume| refusal(&caller, deed.action(), volume)));
    let press = move |()| questions.set(Some(deed.question(volume.get_untracked())));
    view! {
        <Button
            id=format!("{}-{id}", deed.slug())
            label=deed.label(&name)
            icon=deed.icon()
            icon_only=true
            kind=kind
            blocked=blocked
            on_press=Callback::new(press)
        />
    }
}
