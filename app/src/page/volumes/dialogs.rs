//! What is asked before something is done with a volume.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_navigate;
use vimana_model::VmId;
use vimana_model::image::ImportImage;
use vimana_model::name::DatastoreName;
use vimana_model::vm::{HostRef, VmView};
use vimana_model::volume::{
    AttachVolume, CloneVolume, CreateVolume, GrowVolume, MoveVolume, VolumeView,
};
use vimana_ui::{
    Answers, CheckField, Choice, Confirm, Dialog, SelectField, TextField, ToastKind, Toasts, part,
};

use super::{Question, Questions};
use crate::api::{
    ApiError, ApiResult, Key, Show, attach_volume, clone_volume, create_volume, delete_volume,
    grow_volume, import_image, move_volume, once, vms, volume_datastores,
};
use crate::live::{Live, Mark};
use crate::page::refused::{of_field, otherwise};
use crate::page::volume::{LargerSize, size};
use crate::session::CurrentSession;

#[component]
pub fn Dialogs(questions: Questions) -> impl IntoView {
    // What is asked about stays while a dialog closes.
    let named = Memo::new(move |before: Option<&Option<Question>>| {
        questions.get().or_else(|| before.cloned().flatten())
    });
    let close = Callback::new(move |()| questions.set(None));
    let open = move |is: fn(&Question) -> bool| {
        Signal::derive(move || questions.with(|asked| asked.as_ref().is_some_and(is)))
    };
    let title = Signal::derive(move || match named.get() {
        Some(Question::Attach(volume)) => format!("Attach {}", volume.name),
        Some(Question::Grow(volume)) => format!("Make {} larger", volume.name),
        Some(Question::Move(volume)) => format!("Move {}", volume.name),
        Some(Question::Copy(volume)) => format!("Make an image of {}", volume.name),
        Some(Question::Clone(volume)) => format!("Clone {}", volume.name),
        Some(Question::Delete(volume)) => format!("Delete {}?", volume.name),
        Some(Question::New) | None => String::new(),
    });
    let about = move || match named.get_untracked()? {
        Question::New => None,
        Question::Attach(volume)
        | Question::Grow(volume)
        | Question::Move(volume)
        | Question::Copy(volume)
        | Question::Clone(volume)
        | Question::Delete(volume) => Some(volume),
    };
    view! {
        <Dialog id="new-volume-dialog" open=open(|q| *q == Question::New) on_close=close title="New volume".to_owned() wide=true>
            <NewForm close=close/>
        </Dialog>
        <Dialog id="attach-volume" open=open(|q| matches!(q, Question::Attach(_))) on_close=close title=title>
            {about().map(|volume| view! { <AttachForm volume=volume close=close/> })}
        </Dialog>
        <Dialog id="grow-volume" open=open(|q| matches!(q, Question::Grow(_))) on_close=close title=title>
            {about().map(|volume| view! { <GrowForm volume=volume close=close/> })}
        </Dialog>
        <Dialog id="move-volume" open=open(|q| matches!(q, Question::Move(_))) on_close=close title=title>
            {about().map(|volume| view! { <MoveForm volume=volume close=close/> })}
        </Dialog>
        <Dialog id="copy-volume" open=open(|q| matches!(q, Question::Copy(_))) on_close=close title=title>
            {about().map(|volume| view! { <CopyForm volume=volume close=close/> })}
        </Dialog>
        <Dialog id="clone-volume" open=open(|q| matches!(q, Question::Clone(_))) on_close=close title=title>
            {about().map(|volume| view! { <CloneForm volume=volume close=close/> })}
        </Dialog>
        <Confirm
            id="delete-volume"
            open=open(|q| matches!(q, Question::Delete(_)))
            on_close=close
            title=title
            text=Signal::derive(|| "It is deleted with all that is on it. Nobody can bring it back.".to_owned())
            yes=Signal::derive(move || match named.get() {
                Some(Question::Delete(volume)) => format!("Delete {}", volume.name),
                Some(Question::New | Question::Attach(_) | Question::Grow(_) | Question::Move(_) | Question::Copy(_) | Question::Clone(_)) | None => String::new(),
            })
            no="Keep it"
            on_yes=deletion(named)
        />
    }
}

fn deletion(named: Memo<Option<Question>>) -> Callback<()> {
    let live = expect_context::<Live>();
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    Callback::new(move |()| {
        let Some(Question::Delete(volume)) = named.get_untracked() else {
            return;
        };
        let live = live.clone();
        spawn_local(async move {
            let answer = once(Key::fresh(), |key| delete_volume(volume.id, key));
            match live.ask(answer).await {
                Ok((asked, now)) => {
                    let text = format!("{} is deleted.", volume.name);
                    toasts.show(ToastKind::Info, text);
                    live.adopt_volume(asked, now);
                }
                Err(error) => {
                    session.notice(&error);
                    toasts.show(ToastKind::Error, error.sentence());
                }
            }
        });
    })
}

/// A form in a dialog: what it was refused for, and whether it is under way.
#[derive(Clone)]
struct Sheet {
    live: Live,
    session: CurrentSession,
    refused: RwSignal<Option<ApiError>>,
    busy: RwSignal<bool>,
    close: Callback<()>,
}

impl Sheet {
    fn new(close: Callback<()>) -> Self {
        Self {
            live: expect_context::<Live>(),
            session: expect_context::<CurrentSession>(),
            refused: RwSignal::new(None),
            busy: RwSignal::new(false),
            close,
        }
    }

    /// Sends what was found to be in order, and closes once it is accepted.
    fn send<T, F>(
        &self,
        checked: Result<(), ApiError>,
        answer: impl FnOnce() -> F,
        then: impl FnOnce(&Live, Mark, T) + 'static,
    ) where
        T: 'static,
        F: Future<Output = ApiResult<T>> + 'static,
    {
        if self.busy.get_untracked() {
            return;
        }
        if let Err(error) = checked {
            self.refused.set(Some(error));
            return;
        }
        self.busy.set(true);
        let (sheet, answer) = (self.clone(), answer());
        spawn_local(async move {
            match sheet.live.ask(answer).await {
                Ok((asked, value)) => {
                    then(&sheet.live, asked, value);
                    sheet.close.run(());
                }
                Err(error) => {
                    sheet.session.notice(&error);
                    sheet.busy.try_set(false);
                    sheet.refused.try_set(Some(error));
                }
            }
        });
    }
}

fn keep(live: &Live, asked: Mark, volume: VolumeView) {
    live.adopt_volume(asked, volume);
}

#[component]
fn NewForm(close: Callback<()>) -> impl IntoView {
    let sheet = Sheet::new(close);
    let refused = sheet.refused;
    let name = RwSignal::new(String::new());
    let mib = RwSignal::new("1024".to_owned());
    let image = RwSignal::new(String::new());
    let goes = RwSignal::new(false);
    let datastore = RwSignal::new(DatastoreName::local().to_string());
    let places = RwSignal::new(Vec::<Choice>::new());
    spawn_local(async move {
        // Without them it is made where most are.
        if let Ok(names) = volume_datastores(None).await {
            places.try_set(names.iter().map(place).collect());
        }
    });
    let sent = sheet.clone();
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let image = image.get_untracked().trim().to_owned();
        let form = CreateVolume {
            name: name.get_untracked().trim().to_owned(),
            size_mib: size(&mib.get_untracked()),
            image: (!image.is_empty()).then_some(image),
            datastore: Some(datastore.get_untracked()),
            delete_with_vm: goes.get_untracked(),
        };
        let checked = form.check().map(drop).map_err(ApiError::from);
        let answer = || once(Key::fresh(), move |key| create_volume(form.clone(), key));
        sent.send(checked, answer, keep);
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <TextField id="volume-name" label="Name" placeholder="data" autofocus=true value=name error=of_field(refused, "name")/>
            <TextField id="volume-size" label="Size in MiB" numeric=true value=mib error=of_field(refused, "size_mib")/>
            <TextField
                id="volume-image"
                label="Image"
                hint="Name of an image that it begins as a copy of."
                optional=true
                value=image
                error=of_field(refused, "image")
            />
            {part(move || Some(places.get()).filter(|all| all.len() > 1).map(|all| view! {
                <SelectField
                    id="volume-datastore"
                    label="Datastore"
                    hint="Of the host of the VM that is given it first."
                    choices=all
                    value=datastore
                    error=of_field(refused, "datastore")
                />
            }.into_any()))}
            <CheckField
                id="volume-goes"
                label="Delete it together with its VM"
                hint="Otherwise it stays when the VM goes, for another one on the same host."
                value=goes
            />
            <Answers error=otherwise(refused, &["name", "size_mib", "image", "datastore"]) on_cancel=close label="Make it".to_owned() busy=sheet.busy/>
        </form>
    }
    .into_any()
}

#[component]
fn AttachForm(volume: VolumeView, close: Callback<()>) -> impl IntoView {
    let sheet = Sheet::new(close);
    let refused = sheet.refused;
    let chosen = RwSignal::new(String::new());
    let fitting = RwSignal::new(None::<Vec<VmView>>);
    let of = volume.clone();
    spawn_local(async move {
        match vms(Show::Active).await {
            Ok(mut all) => {
                all.retain(|vm| fits(&of, vm));
                let first = all.first().map(|vm| vm.id.to_string());
                chosen.try_set(first.unwrap_or_default());
                fitting.try_set(Some(all));
            }
            Err(error) => {
                refused.try_set(Some(error));
            }
        }
    });
    let (id, sent) = (volume.id, sheet.clone());
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let Ok(vm_id) = chosen.get_untracked().parse::<VmId>() else {
            return;
        };
        let form = AttachVolume { vm_id };
        let answer = || {
            once(Key::fresh(), move |key| {
                attach_volume(id, form.clone(), key)
            })
        };
        sent.send(Ok(()), answer, keep);
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            {part(move || Some(match fitting.get() {
                None => view! { <p class="faint" role="status">"Looking for VMs…"</p> }.into_any(),
                Some(all) if all.is_empty() => view! {
                    <p class="faint" role="status">"There is no VM that it could be attached to: it has to be on the volume's host."</p>
                }
                .into_any(),
                Some(all) => {
                    let choice = |vm: VmView| Choice { value: vm.id.to_string(), text: vm.name.to_string() };
                    view! { <SelectField id="attach-vm" label="VM" choices=all.into_iter().map(choice).collect() value=chosen/> }.into_any()
                }
            }))}
            <Answers error=otherwise(refused, &[]) on_cancel=close label="Attach it".to_owned() busy=sheet.busy/>
        </form>
    }
    .into_any()
}

/// Whether the VM could be given the volume, as far as places go. Who shares a
/// datastore, the server knows.
fn fits(volume: &VolumeView, vm: &VmView) -> bool {
    let (here, there) = (volume.host.as_ref(), vm.host.as_ref());
    let reaches = |there: &HostRef| {
        !volume.datastore.is_local() || here.is_none_or(|here| here.id == there.id)
    };
    vm.tenant_id == volume.tenant_id && there.is_some_and(reaches)
}

#[component]
fn GrowForm(volume: VolumeView, close: Callback<()>) -> impl IntoView {
    let sheet = Sheet::new(close);
    let refused = sheet.refused;
    let mib = RwSignal::new(volume.size_mib.0.saturating_mul(2).to_string());
    let (id, sent) = (volume.id, sheet.clone());
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let form = GrowVolume {
            size_mib: size(&mib.get_untracked()),
        };
        let checked = form.check().map(drop).map_err(ApiError::from);
        let answer = || once(Key::fresh(), move |key| grow_volume(id, form, key));
        sent.send(checked, answer, keep);
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <LargerSize volume=volume value=mib refused=refused/>
            <Answers error=otherwise(refused, &["size_mib"]) on_cancel=close label="Make it larger".to_owned() busy=sheet.busy/>
        </form>
    }
    .into_any()
}

#[component]
fn MoveForm(volume: VolumeView, close: Callback<()>) -> impl IntoView {
    let sheet = Sheet::new(close);
    let refused = sheet.refused;
    let chosen = RwSignal::new(String::new());
    let others = RwSignal::new(None::<Vec<Choice>>);
    let (id, sent, is) = (volume.id, sheet.clone(), volume.datastore.clone());
    spawn_local(async move {
        match volume_datastores(Some(id)).await {
            Ok(names) => {
                let names = names.into_iter().filter(|name| *name != is);
                let all: Vec<Choice> = names.map(|name| place(&name)).collect();
                let first = all.first().map(|place| place.value.clone());
                chosen.try_set(first.unwrap_or_default());
                others.try_set(Some(all));
            }
            Err(error) => {
                refused.try_set(Some(error));
            }
        }
    });
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let form = MoveVolume {
            datastore: chosen.get_untracked(),
        };
        let checked = form.check().map(drop).map_err(ApiError::from);
        let answer = || once(Key::fresh(), move |key| move_volume(id, form.clone(), key));
        sent.send(checked, answer, keep);
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            {part(move || Some(match others.get() {
                None => view! { <p class="faint" role="status">"Looking for datastores…"</p> }.into_any(),
                Some(all) if all.is_empty() => view! {
                    <p class="faint" role="status">"Its host has no other datastore."</p>
                }
                .into_any(),
                Some(all) => view! {
                    <SelectField
                        id="move-to"
                        label="To datastore"
                        hint="The VM that has it runs on meanwhile. It is in the one or the other until all of it is there."
                        choices=all
                        value=chosen
                        error=of_field(refused, "datastore")
                    />
                }
                .into_any(),
            }))}
            <Answers error=otherwise(refused, &["datastore"]) on_cancel=close label="Move it".to_owned() busy=sheet.busy/>
        </form>
    }
    .into_any()
}

/// As people choose it.
fn place(name: &DatastoreName) -> Choice {
    let text = if name.is_local() {
        "local: its host's own disk".to_owned()
    } else {
        name.to_string()
    };
    Choice {
        value: name.to_string(),
        text,
    }
}

#[component]
fn CloneForm(volume: VolumeView, close: Callback<()>) -> impl IntoView {
    let sheet = Sheet::new(close);
    let refused = sheet.refused;
    let name = RwSignal::new(format!("{}-2", volume.name));
    let (id, sent) = (volume.id, sheet.clone());
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let form = CloneVolume {
            name: name.get_untracked().trim().to_owned(),
            delete_with_vm: false,
        };
        let checked = form.check().map(drop).map_err(ApiError::from);
        let answer = || once(Key::fresh(), move |key| clone_volume(id, form.clone(), key));
        sent.send(checked, answer, keep);
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <TextField
                id="clone-name"
                label="Name of the new volume"
                hint="It holds what is on this one at one instant, and can be attached once that has been copied."
                autofocus=true
                value=name
                error=of_field(refused, "name")
            />
            <Answers error=otherwise(refused, &["name"]) on_cancel=close label="Clone it".to_owned() busy=sheet.busy/>
        </form>
    }
    .into_any()
}

#[component]
fn CopyForm(volume: VolumeView, close: Callback<()>) -> impl IntoView {
    let navigate = use_navigate();
    let sheet = Sheet::new(close);
    let refused = sheet.refused;
    let name = RwSignal::new(volume.name.to_string());
    let (id, sent) = (volume.id, sheet.clone());
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        let form = ImportImage {
            name: name.get_untracked().trim().to_owned(),
            volume: Some(id.to_string()),
            ..ImportImage::default()
        };
        let checked = form.check().map(drop).map_err(ApiError::from);
        let answer = || once(Key::fresh(), move |key| import_image(form.clone(), key));
        let navigate = navigate.clone();
        sent.send(checked, answer, move |live, asked, accepted| {
            let url = format!("/images/{}", accepted.image.id);
            live.adopt_image(asked, accepted.image);
            navigate(&url, Default::default());
        });
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <TextField
                id="image-name"
                label="Name of the image"
                hint="It holds what is on the volume at one instant; a VM that has the volume runs on."
                autofocus=true
                value=name
                error=of_field(refused, "name")
            />
            <Answers error=otherwise(refused, &["name"]) on_cancel=close label="Make the image".to_owned() busy=sheet.busy/>
        </form>
    }
    .into_any()
}
