//! The points in time that a VM can go back to.

use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::action::VmAction;
use vimana_model::event::{EventKind, EventView};
use vimana_model::snapshot::{SnapshotState, SnapshotView};
use vimana_model::vm::VmView;
use vimana_ui::{Badge, Button, ButtonKind, Confirm, Each, IconName, Item, Time, Tone, When, memo};

use crate::api::{VmArgs, vm_snapshots};
use crate::live::Timeline;
use crate::page::sentence;
use crate::page::vm_actions::{VmDesk, blocked};
use crate::session::Caller;

/// What somebody is asked about.
#[derive(Clone, PartialEq)]
struct Asked {
    action: VmAction,
    snapshot: SnapshotView,
}

#[component]
pub fn Snapshots(
    vm: ArcRwSignal<VmView>,
    first: Vec<SnapshotView>,
    events: Timeline,
) -> impl IntoView {
    let id = vm.with_untracked(|vm| vm.id);
    let list = RwSignal::new(first);
    follow(events, move || {
        spawn_local(async move {
            // What cannot be read now is read at the next event.
            if let Ok(snapshots) = vm_snapshots(id).await {
                list.try_set(snapshots);
            }
        });
    });
    let asked = RwSignal::new(None::<Asked>);
    let desk = expect_context::<VmDesk>();
    let take = {
        let (desk, vm) = (desk.clone(), vm.clone());
        Callback::new(move |()| desk.press(VmAction::Snapshot, &vm, RwSignal::new(false)))
    };
    let entries = {
        let vm = vm.clone();
        Signal::derive(move || {
            let entry = |snapshot: SnapshotView| {
                let vm = vm.clone();
                // Another entry as soon as anything about it is another.
                let key = format!("{} {} {}", snapshot.id, snapshot.state, snapshot.current);
                Item::new(key, move || {
                    view! { <Entry vm=vm.clone() snapshot=snapshot.clone() asked=asked/> }
                })
            };
            list.get().into_iter().rev().map(entry).collect()
        })
    };
    view! {
        <section class="panel" aria-labelledby="snapshots-title">
            <div class="panel-head">
                <h2 id="snapshots-title">"Snapshots"</h2>
                <Button
                    id="take-snapshot"
                    label="Take a snapshot".to_owned()
                    icon=IconName::Camera
                    blocked=blocked(&vm, VmAction::Snapshot)
                    on_press=take
                />
            </div>
            <When
                is=Signal::derive(move || !list.with(Vec::is_empty))
                otherwise=|| view! {
                    <p class="faint">"There is none. Take one before you change something that you may want back."</p>
                }
            >
                <ol class="timeline" reversed>
                    <Each items=entries/>
                </ol>
            </When>
        </section>
        <Sure vm=vm.clone() asked=asked/>
    }
    .into_any()
}

/// Has it done whenever something was done with the VM's disks.
pub fn follow(events: Timeline, read: impl Fn() + 'static) {
    let told = memo(move || {
        events.with(|events| {
            let about = |event: &&EventView| is_of_disks(&event.event);
            events.iter().rev().find(about).map(|event| event.seq)
        })
    });
    Effect::new(move |before: Option<Option<u64>>| {
        let now = told.get();
        if before.is_some_and(|before| before != now) {
            read();
        }
        now
    });
}

/// Whether snapshots or volumes of the VM may be others afterwards.
fn is_of_disks(event: &EventKind) -> bool {
    if let EventKind::Requested { operation }
    | EventKind::OperationFailed { operation, .. }
    | EventKind::Cancelled { operation } = event
    {
        return operation.is_of_disks();
    }
    matches!(
        event,
        EventKind::SnapshotTaken { .. }
            | EventKind::Reverted { .. }
            | EventKind::SnapshotRemoved { .. }
            | EventKind::VolumeAttached { .. }
            | EventKind::VolumeDetached { .. }
            | EventKind::VolumeGrown { .. }
            | EventKind::VolumeMoved { .. }
            | EventKind::DiskMoved { .. }
            | EventKind::VolumeCame { .. }
            | EventKind::VolumeDeleted { .. }
            | EventKind::Failed { .. }
    )
}

#[component]
fn Entry(
    vm: ArcRwSignal<VmView>,
    snapshot: SnapshotView,
    asked: RwSignal<Option<Asked>>,
) -> impl IntoView {
    let caller = expect_context::<Caller>();
    let SnapshotView {
        id,
        name,
        state,
        memory,
        root,
        claimed_mib,
        current,
        owner,
        created_at,
        ..
    } = snapshot.clone();
    let volumes = snapshot.volumes.join(", ");
    let mut holds = vec![match (root, memory) {
        (false, _) => format!("volume {volumes} alone"),
        (true, true) => "with its memory".to_owned(),
        (true, false) => "its disks alone".to_owned(),
    }];
    if root && !volumes.is_empty() {
        holds.push(format!("volumes {volumes}"));
    }
    holds.push(format!("keeps {claimed_mib} free"));
    let refused = {
        let (vm, then) = (vm.clone(), snapshot.then());
        memo(move || {
            vm.with(|vm| {
                caller.refusal(VmAction::Revert, vm).or_else(|| {
                    if state != SnapshotState::Ready {
                        return Some("It is not whole.".to_owned());
                    }
                    let judged = then.judge_revert(vm.state, vm.resources);
                    judged
                        .err()
                        .map(|refusal| sentence(&format!("it {refusal}")))
                })
            })
        })
    };
    let ask = move |action: VmAction| {
        let snapshot = snapshot.clone();
        Callback::new(move |()| {
            let snapshot = snapshot.clone();
            asked.set(Some(Asked { action, snapshot }));
        })
    };
    let busy = state != SnapshotState::Ready;
    let note = match state {
        SnapshotState::Taking => Some("being taken"),
        SnapshotState::Removing => Some("only to be deleted"),
        SnapshotState::Ready => None,
    };
    view! {
        <li data-tone=if current { Some(Tone::Good.slug()) } else { busy.then_some(Tone::Moving.slug()) } data-snapshot=name.to_string()>
            <div class="entry-head">
                <p>
                    {name.to_string()} " "
                    {current.then(|| view! { <Badge tone=Tone::Good text="you are here".to_owned()/> }.into_any())}
                    {note.map(|note| view! { <Badge tone=Tone::Moving text=note.to_owned()/> }.into_any())}
                </p>
                <div class="actions" role="group" aria-label=format!("Actions on {name}")>
                    <Button
                        id=format!("revert-{id}")
                        label=format!("Go back to {name}")
                        icon=IconName::Undo
                        icon_only=true
                        blocked=refused
                        on_press=ask(VmAction::Revert)
                    />
                    <Button
                        id=format!("delete-{id}")
                        label=format!("Delete {name}")
                        icon=IconName::Trash
                        icon_only=true
                        kind=ButtonKind::Danger
                        blocked=blocked(&vm, VmAction::RemoveSnapshot)
                        on_press=ask(VmAction::RemoveSnapshot)
                    />
                </div>
            </div>
            <p class="faint">
                {holds.join(" · ")} " · " <span class="actor">{owner}</span> " · " <Time at_ms=created_at.as_ms()/>
            </p>
        </li>
    }
    .into_any()
}

#[component]
fn Sure(vm: ArcRwSignal<VmView>, asked: RwSignal<Option<Asked>>) -> impl IntoView {
    let desk = expect_context::<VmDesk>();
    // What is asked about stays while the dialog closes.
    let named = Memo::new(move |before: Option<&Option<Asked>>| {
        asked.get().or_else(|| before.cloned().flatten())
    });
    let text_of = move |of: fn(&Asked) -> String| {
        Signal::derive(move || named.with(|asked| asked.as_ref().map(of).unwrap_or_default()))
    };
    let sure = Callback::new(move |()| {
        if let Some(Asked { action, snapshot }) = named.get_untracked() {
            desk.ask(action, vm.clone(), VmArgs::Snapshot(snapshot.id));
        }
    });
    view! {
        <Confirm
            id="snapshot-sure"
            open=Signal::derive(move || asked.with(Option::is_some))
            on_close=Callback::new(move |()| asked.set(None))
            title=text_of(|asked| {
                let name = &asked.snapshot.name;
                if asked.action == VmAction::Revert {
                    format!("Go back to {name}?")
                } else {
                    format!("Delete {name}?")
                }
            })
            text=text_of(|asked| {
                if asked.action == VmAction::Revert && !asked.snapshot.root {
                    "The volume becomes what it was then. What was written on it since is lost, unless another snapshot holds it.".to_owned()
                } else if asked.action == VmAction::Revert {
                    "Its disks become what they were then. What was written since is lost, unless another snapshot holds it.".to_owned()
                } else {
                    "Nobody can go back to it any more. The VM stays as it is.".to_owned()
                }
            })
            yes=text_of(|asked| {
                let name = &asked.snapshot.name;
                if asked.action == VmAction::Revert {
                    format!("Go back to {name}")
                } else {
                    format!("Delete {name}")
                }
            })
            no="Leave it as it is"
            on_yes=sure
        />
    }
}
