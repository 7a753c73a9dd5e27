//! The volumes that a VM has, and those that it can be given.

use leptos::ev::SubmitEvent;
use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::action::VmAction;
use vimana_model::vm::VmView;
use vimana_model::volume::{
    CreateVolume, GrowVolume, VolumeAction, VolumeContent, VolumeState, VolumeView,
};
use vimana_model::{VmId, VolumeId};
use vimana_ui::{
    Answers, Badge, Button, ButtonKind, Cell, CheckField, Confirm, Dialog, Each, IconName, Item,
    Table, TextField, ToastKind, Toasts, When, memo,
};

use super::snapshots::follow;
use crate::api::{ApiError, Key, VmArgs, create_volume, delete_volume, once, volumes};
use crate::live::Timeline;
use crate::page::refused::{of_field, otherwise};
use crate::page::vm_actions::{VmDesk, blocked};
use crate::page::volume::{LargerSize, condition, datastore, refusal, size as parsed};
use crate::session::{Caller, CurrentSession};

/// What a dialog is open for.
#[derive(Clone, PartialEq)]
enum Asked {
    New,
    Grow(VolumeView),
    Delete(VolumeView),
}

/// What the rows share.
#[derive(Clone)]
struct Shelf {
    vm: ArcRwSignal<VmView>,
    list: RwSignal<Vec<VolumeView>>,
    asked: RwSignal<Option<Asked>>,
}

impl Shelf {
    fn read(&self) {
        let list = self.list;
        spawn_local(async move {
            // What cannot be read now is read at the next event.
            if let Ok(found) = volumes().await {
                list.try_set(found);
            }
        });
    }
}

#[component]
pub fn Volumes(vm: ArcRwSignal<VmView>, first: Vec<VolumeView>, events: Timeline) -> impl IntoView {
    let (id, tenant) = vm.with_untracked(|vm| (vm.id, vm.tenant_id));
    let shelf = Shelf {
        vm: vm.clone(),
        list: RwSignal::new(first),
        asked: RwSignal::new(None),
    };
    let again = shelf.clone();
    follow(events, move || again.read());
    let (list, asked) = (shelf.list, shelf.asked);
    let on_host = {
        let vm = vm.clone();
        memo(move || vm.with(|vm| vm.host.as_ref().map(|host| host.id)))
    };
    // Its own first, then those that it could be given.
    let shown = memo(move || {
        let here = on_host.get();
        let all = list.get();
        let (own, others): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|volume| volume.vm.as_ref().is_some_and(|vm| vm.id == id));
        let fits = |volume: &VolumeView| {
            let host = volume.host.as_ref().map(|host| host.id);
            volume.state == VolumeState::Ready
                && volume.content == VolumeContent::AtHand
                && volume.tenant_id == tenant
                && (host.is_none() || host == here || !volume.datastore.is_local())
        };
        own.into_iter()
            .chain(others.into_iter().filter(fits))
            .collect::<Vec<_>>()
    });
    let rows = {
        let shelf = shelf.clone();
        Signal::derive(move || {
            let row = |volume: VolumeView| {
                let shelf = shelf.clone();
                let place = datastore(&volume);
                let key = format!("{} {} {} {place}", volume.id, volume.state, volume.size_mib);
                Item::new(key, move || {
                    view! { <Row shelf=shelf.clone() volume=volume.clone() of=id/> }
                })
            };
            shown.get().into_iter().map(row).collect()
        })
    };
    view! {
        <section class="panel" aria-labelledby="volumes-title">
            <div class="panel-head">
                <h2 id="volumes-title">"Volumes"</h2>
                <Button
                    id="new-volume"
                    label="New volume".to_owned()
                    icon=IconName::Plus
                    blocked=blocked(&vm, VmAction::Attach)
                    on_press=Callback::new(move |()| asked.set(Some(Asked::New)))
                />
            </div>
            <When
                is=Signal::derive(move || !shown.with(Vec::is_empty))
                otherwise=|| view! {
                    <p class="faint">"There is none. A volume is a disk that outlives the VM it is attached to."</p>
                }
            >
                <Table caption="Volumes of this VM, and free ones" columns=&["Volume", "Size", "State", "Actions"]>
                    <Each items=rows/>
                </Table>
            </When>
        </section>
        <Dialogs shelf=shelf/>
    }
    .into_any()
}

#[component]
fn Row(shelf: Shelf, volume: VolumeView, of: VmId) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let Shelf { vm, asked, .. } = shelf;
    let own = volume.vm.as_ref().is_some_and(|vm| vm.id == of);
    let (id, name) = (volume.id, volume.name.to_string());
    let act = |action: VmAction| {
        let (desk, vm) = (desk.clone(), vm.clone());
        Callback::new(move |()| desk.ask(action, vm.clone(), VmArgs::Volume(id)))
    };
    let (key, shown) = (name.clone(), name.clone());
    let with_vm = volume.delete_with_vm.then_some("goes with its VM");
    let (tone, word) = condition(&volume);
    let grow = Asked::Grow(volume.clone());
    let delete = Asked::Delete(volume.clone());
    let buttons = if own {
        view! {
            <Button
                id=format!("grow-{id}")
                label=format!("Make {name} larger")
                icon=IconName::Resize
                icon_only=true
                blocked=blocked(&vm, VmAction::Grow)
                on_press=Callback::new(move |()| asked.set(Some(grow.clone())))
            />
            <Button
                id=format!("detach-{id}")
                label=format!("Detach {name}")
                icon=IconName::Cross
                icon_only=true
                blocked=blocked(&vm, VmAction::Detach)
                on_press=act(VmAction::Detach)
            />
        }
        .into_any()
    } else {
        view! {
            <Button
                id=format!("attach-{id}")
                label=format!("Attach {name}")
                icon=IconName::Plus
                icon_only=true
                blocked=blocked(&vm, VmAction::Attach)
                on_press=act(VmAction::Attach)
            />
            <Button
                id=format!("delete-{id}")
                label=format!("Delete {name}")
                icon=IconName::Trash
                icon_only=true
                kind=ButtonKind::Danger
                blocked=delete_refused(&volume)
                on_press=Callback::new(move |()| asked.set(Some(delete.clone())))
            />
        }
        .into_any()
    };
    view! {
        <tr role="row" data-volume=key>
            <Cell title="Volume">
                {shown}
                {with_vm.map(|with_vm| view! { <span class="why">{with_vm}</span> }.into_any())}
            </Cell>
            <Cell title="Size">
                {volume.size_mib.to_string()}
                <span class="why">{datastore(&volume)}</span>
            </Cell>
            <Cell title="State"><Badge tone=tone text=word.to_owned()/></Cell>
            <Cell title="Actions"><div class="actions">{buttons}</div></Cell>
        </tr>
    }
    .into_any()
}

fn delete_refused(volume: &VolumeView) -> Signal<Option<String>> {
    let caller = expect_context::<Caller>();
    let refused = refusal(&caller, VolumeAction::Delete, volume);
    Signal::derive(move || refused.clone())
}

#[component]
fn Dialogs(shelf: Shelf) -> impl IntoView {
    let asked = shelf.asked;
    // What is asked about stays while a dialog closes.
    let named = Memo::new(move |before: Option<&Option<Asked>>| {
        asked.get().or_else(|| before.cloned().flatten())
    });
    let close = Callback::new(move |()| asked.set(None));
    let open = move |is: fn(&Asked) -> bool| {
        Signal::derive(move || asked.with(|asked| asked.as_ref().is_some_and(is)))
    };
    let grown = {
        let shelf = shelf.clone();
        move || match named.get_untracked() {
            Some(Asked::Grow(volume)) => {
                Some(view! { <GrowForm shelf=shelf.clone() volume=volume close=close/> }.into_any())
            }
            _ => None,
        }
    };
    let making = shelf.clone();
    let title = Signal::derive(move || match named.get() {
        Some(Asked::Grow(volume)) => format!("Make {} larger", volume.name),
        Some(Asked::Delete(volume)) => format!("Delete {}?", volume.name),
        Some(Asked::New) | None => String::new(),
    });
    view! {
        <Dialog id="new-volume-dialog" open=open(|asked| *asked == Asked::New) on_close=close title="New volume".to_owned() wide=true>
            <NewForm shelf=making.clone() close=close/>
        </Dialog>
        <Dialog id="grow-volume" open=open(|asked| matches!(asked, Asked::Grow(_))) on_close=close title=title>
            {grown.clone()()}
        </Dialog>
        <Confirm
            id="delete-volume"
            open=open(|asked| matches!(asked, Asked::Delete(_)))
            on_close=close
            title=title
            text=Signal::derive(|| "It is deleted with all that is on it. Nobody can bring it back.".to_owned())
            yes=Signal::derive(move || match named.get() {
                Some(Asked::Delete(volume)) => format!("Delete {}", volume.name),
                _ => String::new(),
            })
            no="Keep it"
            on_yes=deletion(shelf, named)
        />
    }
}

fn deletion(shelf: Shelf, named: Memo<Option<Asked>>) -> Callback<()> {
    let session = expect_context::<CurrentSession>();
    let toasts = expect_context::<Toasts>();
    Callback::new(move |()| {
        let Some(Asked::Delete(volume)) = named.get_untracked() else {
            return;
        };
        let shelf = shelf.clone();
        spawn_local(async move {
            match once(Key::fresh(), |key| delete_volume(volume.id, key)).await {
                Ok(_) => {
                    let text = format!("{} is deleted.", volume.name);
                    toasts.show(ToastKind::Info, text);
                    shelf.read();
                }
                Err(error) => {
                    session.notice(&error);
                    toasts.show(ToastKind::Error, error.sentence());
                }
            }
        });
    })
}

#[component]
fn NewForm(shelf: Shelf, close: Callback<()>) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let name = RwSignal::new(String::new());
    let size = RwSignal::new("1024".to_owned());
    let goes = RwSignal::new(false);
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        let form = CreateVolume {
            name: name.get_untracked().trim().to_owned(),
            size_mib: parsed(&size.get_untracked()),
            image: None,
            datastore: None,
            delete_with_vm: goes.get_untracked(),
        };
        if let Err(error) = form.check() {
            refused.set(Some(error.into()));
            return;
        }
        busy.set(true);
        let (desk, shelf) = (desk.clone(), shelf.clone());
        spawn_local(async move {
            match make_and_attach(&desk, &shelf, form).await {
                Ok(()) => close.run(()),
                Err(error) => {
                    busy.try_set(false);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <TextField
                id="volume-name"
                label="Name"
                placeholder="data"
                autofocus=true
                value=name
                error=of_field(refused, "name")
            />
            <TextField id="volume-size" label="Size in MiB" numeric=true value=size error=of_field(refused, "size_mib")/>
            <CheckField
                id="volume-goes"
                label="Delete it together with the VM"
                hint="Otherwise it stays when the VM goes, for another one on the same host."
                value=goes
            />
            <Answers error=otherwise(refused, &["name", "size_mib"]) on_cancel=close label="Make and attach it".to_owned() busy=busy/>
        </form>
    }
    .into_any()
}

/// Where it cannot be attached it is there, and free.
async fn make_and_attach(desk: &VmDesk, shelf: &Shelf, form: CreateVolume) -> Result<(), ApiError> {
    let made = once(Key::fresh(), |key| create_volume(form.clone(), key)).await?;
    let args = VmArgs::Volume(made.id);
    let attached = desk.act(VmAction::Attach, shelf.vm.clone(), args).await;
    shelf.read();
    attached
}

#[component]
fn GrowForm(shelf: Shelf, volume: VolumeView, close: Callback<()>) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    let size = RwSignal::new(volume.size_mib.0.saturating_mul(2).to_string());
    let refused = RwSignal::new(None::<ApiError>);
    let busy = RwSignal::new(false);
    let id: VolumeId = volume.id;
    let submit = move |event: SubmitEvent| {
        event.prevent_default();
        if busy.get_untracked() {
            return;
        }
        let size_mib = parsed(&size.get_untracked());
        if let Err(error) = (GrowVolume { size_mib }).check() {
            refused.set(Some(error.into()));
            return;
        }
        busy.set(true);
        let (desk, vm) = (desk.clone(), shelf.vm.clone());
        let args = VmArgs::Grow {
            volume: id,
            size: size_mib,
        };
        spawn_local(async move {
            match desk.act(VmAction::Grow, vm, args).await {
                Ok(()) => close.run(()),
                Err(error) => {
                    busy.try_set(false);
                    refused.try_set(Some(error));
                }
            }
        });
    };
    view! {
        <form class="dialog-form" method="post" novalidate on:submit=submit>
            <LargerSize volume=volume value=size refused=refused/>
            <Answers error=otherwise(refused, &["size_mib"]) on_cancel=close label="Make it larger".to_owned() busy=busy/>
        </form>
    }
    .into_any()
}
