//! What people do all day: make VMs, do everything that can be done with
//! them, change their minds.

use vimana_engine::ActionArgs;
use vimana_model::action::VmAction;
use vimana_model::backup::TakeBackup;
use vimana_model::evacuation::EvacuateHost;
use vimana_model::migration::MigrateVm;
use vimana_model::request::{CreateRequest, RequestAction, RequestDecision};
use vimana_model::unit::MiB;
use vimana_model::vm::{CreateVm, PowerOffVm, ResizeVm};
use vimana_model::{HostId, RequestId, VmId};

use super::chance::Chance;
use super::host::shared;
use super::people::{ADMIN, Ask, MONA, PAUL, People, Person, RITA, Wanted};
use super::setup::USER_DATA;
use super::shelf::Shelf;

/// VMs one person has at most.
const ENOUGH: usize = 4;

/// Somebody who makes VMs and plays with them.
pub async fn tinker(people: People, chance: Chance, number: usize) {
    let who = if number == 1 { ADMIN } else { PAUL };
    let mut vms: Vec<VmId> = Vec::new();
    let mut shelf = Shelf::of(number);
    let mut made = 0;
    while !people.are_home() {
        people.pause(chance.ms(100..=2500)).await;
        if vms.is_empty() || (vms.len() < ENOUGH && chance.one_in(3)) {
            made += 1;
            let form = wish(&chance, format!("vm-{number}-{made}"));
            if let Ok(answer) = people.ask(who, Ask::Create(form)).await {
                vms.extend(answer.vm);
            }
            continue;
        }
        let Some(vm) = chance.pick(&vms).copied() else {
            continue;
        };
        let ask = if chance.one_in(3) {
            shelf.idea(&chance, vm)
        } else {
            let (action, args) = idea(&chance);
            Ask::Act(vm, action, args)
        };
        let action = if let Ask::Act(_, action, _) = &ask {
            Some(*action)
        } else {
            None
        };
        let asked = people.ask(who, ask.clone()).await;
        shelf.note(&ask, &asked);
        if let Ok(answer) = &asked
            && matches!(action, Some(VmAction::Delete | VmAction::Shutdown))
        {
            // A shutdown may fail; whoever sweeps up at the end finds it.
            vms.retain(|known| Some(*known) != answer.vm);
        }
        if let Ok(Some(operation)) = asked.map(|answer| answer.operation)
            && chance.one_in(4)
        {
            people.pause(chance.ms(0..=400)).await;
            // Too late, as often as not.
            let _ = people.ask(who, Ask::Cancel(operation)).await;
        }
    }
}

/// Rita asks, Mona decides.
pub async fn bureaucracy(people: People, chance: Chance) {
    let mut open: Vec<RequestId> = Vec::new();
    let mut made = 0;
    while !people.are_home() {
        people.pause(chance.ms(300..=4000)).await;
        if open.is_empty() || (open.len() < ENOUGH && chance.one_in(4)) {
            made += 1;
            let form = CreateRequest {
                terms: wish(&chance, format!("lab-{made}")),
                purpose: "an experiment".to_owned(),
            };
            if let Ok(answer) = people.ask(RITA, Ask::Request(form)).await {
                open.extend(answer.request);
            }
            continue;
        }
        let Some(request) = chance.pick(&open).copied() else {
            continue;
        };
        let (who, action) = decision(&chance);
        let form = RequestDecision {
            remark: action.needs_remark().then(|| "since it is so".to_owned()),
            terms: (action == RequestAction::Approve && chance.one_in(2))
                .then(|| wish(&chance, format!("lab-{made}-as-approved"))),
            ..RequestDecision::default()
        };
        let _ = people.ask(who, Ask::Decide(request, action, form)).await;
    }
}

/// Now and then a host takes no VMs for a while, or is evacuated. All take VMs
/// again when everybody goes home.
pub async fn upkeep(people: People, chance: Chance, hosts: Vec<HostId>) {
    while !people.are_home() {
        people.pause(chance.ms(1000..=15_000)).await;
        let Some(host) = chance.pick(&hosts).copied() else {
            continue;
        };
        let limit = chance.one_in(2).then_some(1);
        let wanted = match chance.below(4) {
            0 => Wanted::Cordoned,
            _ => Wanted::Evacuated(EvacuateHost { limit }),
        };
        // One that has not joined yet is not known.
        let _ = people.ask(ADMIN, Ask::Host(host, wanted)).await;
        people.pause(chance.ms(500..=12_000)).await;
        let _ = people.ask(ADMIN, Ask::Host(host, Wanted::Enabled)).await;
    }
}

/// Now and then somebody loses their rights, and gets them back.
pub async fn personnel(people: People, chance: Chance) {
    while !people.are_home() {
        people.pause(chance.ms(1000..=12_000)).await;
        let who = chance.pick(&[PAUL, PAUL, RITA, MONA]).copied();
        let who = who.unwrap_or(PAUL);
        people.take_rights(who).await;
        people.pause(chance.ms(200..=6000)).await;
        people.give_rights_back(who).await;
    }
}

fn decision(chance: &Chance) -> (Person, RequestAction) {
    let ideas = [
        (MONA, RequestAction::Approve),
        (MONA, RequestAction::Approve),
        (MONA, RequestAction::Reject),
        (MONA, RequestAction::AskBack),
        (RITA, RequestAction::Answer),
        (RITA, RequestAction::AskRelease),
        (MONA, RequestAction::ConfirmRelease),
        (RITA, RequestAction::Keep),
    ];
    chance
        .pick(&ideas)
        .copied()
        .unwrap_or((MONA, RequestAction::Approve))
}

fn wish(chance: &Chance, name: String) -> CreateVm {
    let flavor = if chance.one_in(4) { "small" } else { "tiny" };
    CreateVm {
        name,
        image: "demo".to_owned(),
        flavor: flavor.to_owned(),
        hold: chance.one_in(10),
        user_data: Some(USER_DATA.to_owned()),
        datastore: chance.one_in(3).then(|| shared().to_string()),
        ..CreateVm::default()
    }
}

fn idea(chance: &Chance) -> (VmAction, ActionArgs) {
    use VmAction as A;
    let ideas = [
        A::Suspend,
        A::Suspend,
        A::Stop,
        A::Stop,
        A::Resume,
        A::Resume,
        A::Resume,
        A::PowerOff,
        A::Start,
        A::Start,
        A::Reboot,
        A::Reset,
        A::Resize,
        A::Backup,
        A::Backup,
        A::Migrate,
        A::Migrate,
        A::Migrate,
        A::Retry,
        A::Retry,
        A::Hold,
        A::Release,
        A::Shutdown,
        A::Delete,
    ];
    let action = chance.pick(&ideas).copied().unwrap_or(A::Delete);
    let args = match action {
        A::PowerOff => ActionArgs::PowerOff(PowerOffVm {
            force: chance.one_in(2),
        }),
        A::Resize => ActionArgs::Resize(ResizeVm {
            vcpus: Some(if chance.one_in(2) { 1 } else { 2 }),
            memory_mib: Some(MiB(256)),
            ..ResizeVm::default()
        }),
        A::Hold
        | A::Release
        | A::Suspend
        | A::Stop
        | A::Resume
        | A::Start
        | A::Reboot
        | A::Reset
        | A::Retry
        | A::Shutdown
        | A::Delete
        | A::Console => ActionArgs::None,
        // These are had from the shelf.
        A::Snapshot | A::Revert | A::RemoveSnapshot | A::Attach | A::Detach | A::Grow | A::Move => {
            ActionArgs::None
        }
        A::Migrate if chance.one_in(6) => ActionArgs::Migrate(MigrateVm {
            datastore: chance
                .pick(&["fast", "local", "shared"])
                .map(|datastore| (*datastore).to_owned()),
            ..MigrateVm::default()
        }),
        A::Migrate => ActionArgs::Migrate(MigrateVm {
            host: chance
                .pick(&["host-1", "host-2", "host-3"])
                .map(|host| (*host).to_owned()),
            datastore: if chance.one_in(3) {
                chance
                    .pick(&["fast", "local", "shared"])
                    .map(|datastore| (*datastore).to_owned())
            } else {
                None
            },
            post_copy: chance.one_in(3),
            ..MigrateVm::default()
        }),
        A::Backup => ActionArgs::Backup(TakeBackup {
            full: chance.one_in(4),
            ..TakeBackup::default()
        }),
    };
    (action, args)
}
