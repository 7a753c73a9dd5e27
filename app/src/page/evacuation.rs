//! How far the VMs of a host are gone: who moves where, who waits, and who
//! cannot go and why.

use std::time::Duration;

use leptos::prelude::*;
use leptos::task::spawn_local;
use vimana_model::VmId;
use vimana_model::evacuation::{DEFAULT_LIMIT, EvacuationView, MAX_TRIES};
use vimana_model::host::DesiredState;
use vimana_ui::{
    Badge, Button, Cell, Each, IconName, Item, Progress, Prose, Table, Tone, When, memo, part,
    text, thousandths, word,
};

use super::host_actions::{HostAction, HostDesk};
use super::sentence;
use crate::api::host_evacuation;
use crate::live::{HostEntry, Live};
use crate::session::Caller;

/// How often it is looked while VMs go: those of other tenants go without a word
/// to this page.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Keeps what is known of an evacuation up to date for as long as it is shown.
pub fn follow(host: &HostEntry) {
    let live = expect_context::<Live>();
    let reader = Reader {
        host: host.clone(),
        wanted: StoredValue::new(false),
        reading: StoredValue::new(false),
    };
    live.on_hosted({
        let reader = reader.clone();
        move || reader.look()
    });
    let view = host.view.clone();
    let drains = memo(move || view.with(|host| host.desired == DesiredState::Draining));
    Effect::new(move |_| {
        let reader = reader.clone();
        let look = move || reader.look();
        if drains.get()
            && let Ok(timer) = set_interval_with_handle(look, LOOK_AGAIN)
        {
            on_cleanup(move || timer.clear());
        }
    });
}

#[derive(Clone)]
struct Reader {
    host: HostEntry,
    /// Something came since it was last read.
    wanted: StoredValue<bool>,
    reading: StoredValue<bool>,
}

impl Reader {
    fn look(&self) {
        let (id, desired) = self
            .host
            .view
            .with_untracked(|host| (host.id, host.desired));
        let evacuation = self.host.evacuation.clone();
        let known = |is: fn(&EvacuationView) -> bool| {
            evacuation.with_untracked(|known| known.as_ref().is_some_and(is))
        };
        let look = match desired {
            DesiredState::Enabled | DesiredState::Cordoned => {
                if known(|_| true) {
                    evacuation.set(None);
                }
                false
            }
            DesiredState::Draining => true,
            DesiredState::Maintenance => !known(|known| known.over),
        };
        if !look {
            return;
        }
        self.wanted.set_value(true);
        if self.reading.get_value() {
            return;
        }
        self.reading.set_value(true);
        let (wanted, reading, view) = (self.wanted, self.reading, self.host.view.clone());
        spawn_local(async move {
            // What comes while it is read is read afterwards; who shows it may be
            // gone by then.
            while wanted.try_get_value() == Some(true) {
                wanted.try_set_value(false);
                // What cannot be read now is read the next time.
                let Ok(found) = host_evacuation(id).await else {
                    continue;
                };
                // It may have ended meanwhile.
                let desired = view.with_untracked(|host| host.desired);
                let found = found.filter(|_| is_evacuated(desired));
                if evacuation.with_untracked(|known| *known != found) {
                    evacuation.set(found);
                }
            }
            reading.try_set_value(false);
        });
    }
}

const fn is_evacuated(desired: DesiredState) -> bool {
    match desired {
        DesiredState::Draining | DesiredState::Maintenance => true,
        DesiredState::Enabled | DesiredState::Cordoned => false,
    }
}

/// How far it is, in a few words.
pub fn moved(view: &EvacuationView) -> String {
    match total(view) {
        0 => "no VM to move".to_owned(),
        total => format!("{} of {total} moved", view.moved),
    }
}

fn total(view: &EvacuationView) -> usize {
    let left = view.moving.len() + view.waiting.len() + view.stuck.len();
    usize::try_from(view.moved)
        .unwrap_or(usize::MAX)
        .saturating_add(left)
}

fn done(view: &EvacuationView) -> u32 {
    if view.over {
        1000
    } else {
        let total = u64::try_from(total(view)).unwrap_or(u64::MAX);
        thousandths(u64::from(view.moved), total)
    }
}

const fn tone(view: &EvacuationView) -> Option<&'static str> {
    if view.over {
        None
    } else if view.stuck.is_empty() {
        Some("moving")
    } else {
        Some("bad")
    }
}

/// What is to be known of it as a whole.
fn summary(view: &EvacuationView) -> String {
    let EvacuationView { by, limit, .. } = view;
    if view.over {
        return format!("Nothing is left on it. {by} had it evacuated.");
    }
    if !view.is_stuck() {
        return match limit {
            1 => format!("One by one, as {by} asked."),
            limit => format!("At most {limit} at once, as {by} asked."),
        };
    }
    match (view.stuck.len(), view.orphans) {
        (0, 1) => {
            "It holds 1 machine that is not recorded; it is not through while it does.".to_owned()
        }
        (0, some) => {
            format!(
                "It holds {some} machines that are not recorded; it is not through while it does."
            )
        }
        (1, _) => format!(
            "1 VM cannot be moved now. It goes when it can, or, \
             if it was tried {MAX_TRIES} times in vain, when the host is evacuated anew."
        ),
        (some, _) => format!(
            "{some} VMs cannot be moved now. They go when they can, or, \
             if they were tried {MAX_TRIES} times in vain, when the host is evacuated anew."
        ),
    }
}

/// Where one VM stands.
#[derive(Clone)]
struct Line {
    vm: VmId,
    name: String,
    tone: Tone,
    state: &'static str,
    text: String,
}

fn lines(view: &EvacuationView) -> Vec<Line> {
    let moving = view.moving.iter().map(|it| Line {
        vm: it.vm.id,
        name: it.vm.name.to_string(),
        tone: Tone::Moving,
        state: "On its way",
        text: format!("to {}", it.to.name),
    });
    let waiting = view.waiting.iter().map(|it| Line {
        vm: it.vm.id,
        name: it.vm.name.to_string(),
        tone: Tone::Resting,
        state: "Waits",
        text: it.reason.as_deref().map(sentence).unwrap_or_default(),
    });
    let stuck = view.stuck.iter().map(|it| Line {
        vm: it.vm.id,
        name: it.vm.name.to_string(),
        tone: Tone::Bad,
        state: "Cannot go",
        text: sentence(&it.reason),
    });
    moving.chain(waiting).chain(stuck).collect()
}

/// Shown while its VMs go, and for as long as it is in maintenance.
#[component]
pub fn Evacuation(host: HostEntry) -> impl IntoView {
    let evacuation = host.evacuation.clone();
    let shown = memo(move || evacuation.with(Option::is_some));
    view! {
        <When is=shown>
            <Panel host=host.clone()/>
        </When>
    }
}

#[component]
fn Panel(host: HostEntry) -> impl IntoView {
    let (id, name) = host
        .view
        .with_untracked(|host| (host.id, host.name.to_string()));
    let evacuation = RwSignal::from(host.evacuation.clone());
    let rows = Signal::derive(move || {
        let row = |line: Line| {
            let key = format!("{} {} {}", line.vm, line.state, line.text);
            Item::new(key, move || view! { <Row line=line.clone()/> })
        };
        let lines = evacuation.with(|view| view.as_ref().map(lines).unwrap_or_default());
        lines.into_iter().map(row).collect()
    });
    let of = move |get: fn(&EvacuationView) -> String| {
        memo(move || evacuation.with(|view| view.as_ref().map(get).unwrap_or_default()))
    };
    let (moved, summary) = (of(moved), of(summary));
    let tone = memo(move || evacuation.with(|view| view.as_ref().and_then(tone)));
    let some =
        memo(move || evacuation.with(|view| view.as_ref().is_some_and(|it| !lines(it).is_empty())));
    let title = format!("evacuation-{id}");
    let titled = title.clone();
    view! {
        <section class="panel evacuation" data-tone=word(move || tone.get()) aria-labelledby=titled>
            <div class="panel-head">
                <h2 id=title>{format!("Evacuation of {name}")}</h2>
                <Steer host=host/>
            </div>
            <Progress
                label=format!("VMs moved away from {name}")
                done=Signal::derive(move || evacuation.with(|view| view.as_ref().map(done)))
                text=moved
            />
            <p class="faint" role="status">{text(move || summary.get())}</p>
            <When is=some>
                <Table
                    caption=format!("VMs on {name}")
                    columns=&["VM", "State", "Where to, or why not"]
                >
                    <Each items=rows/>
                </Table>
            </When>
        </section>
    }
    .into_any()
}

#[component]
fn Row(line: Line) -> impl IntoView {
    let Line {
        vm,
        name,
        tone,
        state,
        text,
    } = line;
    view! {
        <tr role="row">
            <Cell title="VM"><a href=format!("/vms/{vm}") class="name">{name}</a></Cell>
            <Cell title="State"><Badge tone=Signal::derive(move || tone) text=Signal::derive(move || state.to_owned())/></Cell>
            <Cell title="Where to, or why not"><span><Prose text=text/></span></Cell>
        </tr>
    }
    .into_any()
}

/// As long as it is under way: how many go at once, and its end.
#[component]
fn Steer(host: HostEntry) -> impl IntoView {
    let desk = expect_context::<HostDesk>();
    let may = expect_context::<Caller>().may_manage_hosts();
    let view = host.view;
    let busy = RwSignal::new(false);
    let drains = {
        let view = view.clone();
        memo(move || may && view.with(|host| host.desired == DesiredState::Draining))
    };
    let id = view.with_untracked(|host| host.id);
    let evacuation = RwSignal::from(host.evacuation);
    let limit = move |known: &Option<EvacuationView>| {
        known.as_ref().map_or(DEFAULT_LIMIT, |known| known.limit)
    };
    part(move || {
        let (desk, view) = (desk.clone(), view.clone());
        let (asking, asked) = (desk.clone(), view.clone());
        drains.get().then(|| {
            view! {
                <div class="stop">
                    <span class="faint">"Stopped, it is cordoned; VMs on their way go on to their end."</span>
                    <Button
                        id=format!("limit-{id}")
                        label="How many at once…".to_owned()
                        on_press=Callback::new(move |()| asking.ask_limit(&asked, evacuation.with_untracked(limit)))
                    />
                    <Button
                        id=format!("stop-{id}")
                        label="Stop".to_owned()
                        icon=IconName::Hold
                        on_press=Callback::new(move |()| desk.press(HostAction::Cordon, &view, busy))
                        busy=busy
                    />
                </div>
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use vimana_model::evacuation::{StuckVm, WaitingVm};
    use vimana_model::host::HostState;
    use vimana_model::volume::VmRef;
    use vimana_model::{HostId, Timestamp};

    use super::*;

    fn vm(name: &str) -> VmRef {
        VmRef {
            id: VmId::from_parts(0, [0; 10]),
            name: name.parse().unwrap(),
        }
    }

    fn view() -> EvacuationView {
        EvacuationView {
            host_id: HostId::from_parts(0, [0; 10]),
            host: "host-a".parse().unwrap(),
            state: HostState::Draining,
            begun_at: Timestamp::from_ms(0),
            by: "ann".to_owned(),
            limit: 2,
            over: false,
            moved: 2,
            moving: Vec::new(),
            waiting: vec![WaitingVm {
                vm: vm("web"),
                reason: None,
            }],
            stuck: vec![StuckVm {
                vm: vm("db"),
                reason: "there is no other host".to_owned(),
            }],
            orphans: 0,
        }
    }

    #[test]
    fn those_that_cannot_go_count_as_not_moved() {
        let mut view = view();
        assert_eq!(
            (moved(&view), done(&view)),
            ("2 of 4 moved".to_owned(), 500)
        );
        view.over = true;
        assert_eq!(done(&view), 1000);
    }

    #[test]
    fn it_says_what_to_do_only_when_nothing_more_happens_by_itself() {
        let mut view = view();
        assert_eq!(summary(&view), "At most 2 at once, as ann asked.");
        view.waiting.clear();
        assert_eq!(
            summary(&view),
            "1 VM cannot be moved now. It goes when it can, or, \
             if it was tried 3 times in vain, when the host is evacuated anew."
        );
        view.over = true;
        assert_eq!(
            summary(&view),
            "Nothing is left on it. ann had it evacuated."
        );
    }
}
