use std::time::Duration;

use proptest::prelude::*;
use vimana_model::host::HostState;
use vimana_model::name::{DatastoreName, HostName, ZoneName};
use vimana_model::unit::{MiB, Resources};
use vimana_protocol::scheduler::{DatastoreFacts, HostFacts};

use super::*;

fn resources(vcpus: u32) -> Resources {
    Resources {
        vcpus,
        memory_mib: MiB(u64::from(vcpus) * 512),
        disk_mib: MiB(1024),
    }
}

fn host(n: u8, used: u32) -> HostFacts {
    HostFacts {
        id: HostId::from_parts(u64::from(n), [n; 10]),
        name: HostName::new(format!("host-{n}")).unwrap(),
        zone: ZoneName::new("default").unwrap(),
        state: HostState::Enabled,
        connected: true,
        capacity: Resources {
            disk_mib: MiB(1 << 20),
            ..resources(8)
        },
        used: Resources {
            disk_mib: MiB(0),
            ..resources(used)
        },
        datastores: Vec::new(),
    }
}

fn vm(n: u8, vcpus: u32) -> PendingVm {
    PendingVm {
        id: VmId::from_parts(u64::from(n), [n; 10]),
        generation: 1,
        resources: resources(vcpus),
        datastore: DatastoreName::local(),
        since: Timestamp::from_ms(i64::from(n)),
    }
}

/// A state with its own clock.
struct World {
    state: State,
    now: Instant,
}

impl World {
    fn new(hosts: Vec<HostFacts>, pending: Vec<PendingVm>) -> (Self, Vec<FromScheduler>) {
        let mut world = Self {
            state: State::default(),
            now: Instant::now(),
        };
        let frames = world.take(ToScheduler::Snapshot { hosts, pending });
        (world, frames)
    }

    fn take(&mut self, frame: ToScheduler) -> Vec<FromScheduler> {
        self.state.apply(frame, self.now);
        self.decide()
    }

    fn decide(&mut self) -> Vec<FromScheduler> {
        if self.state.is_dirty() {
            self.state.decide(self.now)
        } else {
            Vec::new()
        }
    }

    fn pass(&mut self, time: Duration) -> Vec<FromScheduler> {
        self.now += time;
        self.state.expire(self.now);
        self.decide()
    }

    fn verdict(&mut self, vm: &PendingVm, refused: Option<&str>) -> Vec<FromScheduler> {
        self.take(ToScheduler::Verdict {
            vm_id: vm.id,
            generation: vm.generation,
            refused: refused.map(str::to_owned),
        })
    }
}

/// (vm, host) of each frame; all must be proposals.
fn proposals(frames: &[FromScheduler]) -> Vec<(VmId, HostId)> {
    let pair = |frame: &FromScheduler| {
        let FromScheduler::Proposal { vm_id, host_id, .. } = frame else {
            panic!("{frame:?}")
        };
        (*vm_id, *host_id)
    };
    frames.iter().map(pair).collect()
}

/// The vm of each frame; all must say that there is no host.
fn no_hosts(frames: &[FromScheduler]) -> Vec<VmId> {
    let vm = |frame: &FromScheduler| {
        let FromScheduler::NoHost { vm_id, .. } = frame else {
            panic!("{frame:?}")
        };
        *vm_id
    };
    frames.iter().map(vm).collect()
}

#[test]
fn vms_pending_at_once_spread_over_the_hosts_oldest_first() {
    let vms: Vec<PendingVm> = (0..10).map(|n| vm(n, 1)).collect();
    let (_, frames) = World::new(
        vec![host(0, 0), host(1, 0)],
        vms.iter().rev().cloned().collect(),
    );
    let placed = proposals(&frames);
    let order: Vec<VmId> = placed.iter().map(|(vm, _)| *vm).collect();
    assert_eq!(order, vms.iter().map(|vm| vm.id).collect::<Vec<_>>());
    assert_eq!(
        placed.iter().filter(|(_, on)| *on == host(0, 0).id).count(),
        5
    );
}

#[test]
fn bookings_keep_a_host_from_being_promised_twice() {
    let (_, frames) = World::new(vec![host(0, 0)], vec![vm(0, 8), vm(1, 8)]);
    assert_eq!(proposals(&frames[..1]), [(vm(0, 8).id, host(0, 0).id)]);
    assert_eq!(no_hosts(&frames[1..]), [vm(1, 8).id]);
}

#[test]
fn an_accepted_booking_counts_until_the_figures_hold_it() {
    let first = vm(0, 8);
    let (mut world, _) = World::new(vec![host(0, 0)], vec![first.clone()]);
    assert!(world.verdict(&first, None).is_empty());
    world.take(ToScheduler::Gone { vm_id: first.id });
    assert_eq!(
        no_hosts(&world.take(ToScheduler::Pending(vm(1, 8)))),
        [vm(1, 8).id]
    );
    // The figures hold the claim now, and then the VM ends.
    assert!(world.take(ToScheduler::Host(host(0, 8))).is_empty());
    assert_eq!(
        proposals(&world.take(ToScheduler::Host(host(0, 0)))).len(),
        1
    );
}

#[test]
fn figures_that_come_before_the_verdict_hold_the_claim_already() {
    let first = vm(0, 4);
    let (mut world, _) = World::new(vec![host(0, 0)], vec![first.clone()]);
    world.take(ToScheduler::Host(host(0, 4)));
    world.verdict(&first, None);
    assert_eq!(
        proposals(&world.take(ToScheduler::Pending(vm(1, 4)))).len(),
        1
    );
}

#[test]
fn a_vm_without_room_is_reported_once_and_placed_when_room_appears() {
    let waiting = vm(0, 4);
    let (mut world, frames) = World::new(vec![host(0, 6)], vec![waiting.clone()]);
    assert_eq!(no_hosts(&frames), [waiting.id]);
    assert!(world.take(ToScheduler::Host(host(0, 6))).is_empty());
    assert!(world.take(ToScheduler::Pending(waiting.clone())).is_empty());
    // Another figure in the reason is another explanation.
    assert_eq!(
        no_hosts(&world.take(ToScheduler::Host(host(0, 5)))),
        [waiting.id]
    );
    assert_eq!(
        proposals(&world.take(ToScheduler::Host(host(0, 4)))).len(),
        1
    );
}

#[test]
fn a_refused_proposal_is_taken_back_and_waits_for_a_change() {
    let first = vm(0, 8);
    let (mut world, _) = World::new(vec![host(0, 0)], vec![first.clone()]);
    assert!(world.verdict(&first, Some("no room")).is_empty());
    // The host is free again for others.
    assert_eq!(
        proposals(&world.take(ToScheduler::Pending(vm(1, 1)))).len(),
        1
    );
    let frames = world.take(ToScheduler::Host(host(1, 0)));
    assert_eq!(proposals(&frames), [(first.id, host(1, 0).id)]);
}

#[test]
fn a_refused_proposal_is_decided_anew_after_a_rest_even_if_nothing_changes() {
    let first = vm(0, 8);
    let (mut world, _) = World::new(vec![host(0, 0)], vec![first.clone()]);
    world.verdict(&first, Some("try later"));
    assert!(world.pass(REFUSED_REST / 2).is_empty());
    assert_eq!(proposals(&world.pass(REFUSED_REST)).len(), 1);
}

#[test]
fn figures_that_crossed_a_refusal_are_used_at_once() {
    let first = vm(0, 8);
    let (mut world, _) = World::new(vec![host(0, 0), host(1, 4)], vec![first.clone()]);
    world.take(ToScheduler::Host(host(0, 4)));
    assert_eq!(
        no_hosts(&world.verdict(&first, Some("no room"))),
        [first.id]
    );
}

#[test]
fn a_verdict_that_never_comes_is_given_up() {
    let (mut world, frames) = World::new(vec![host(0, 0)], vec![vm(0, 8)]);
    assert_eq!(frames.len(), 1);
    assert_eq!(world.state.next_expiry(), Some(world.now + VERDICT_TIMEOUT));
    assert_eq!(proposals(&world.pass(VERDICT_TIMEOUT)).len(), 1);
}

#[test]
fn new_terms_replace_an_open_proposal() {
    let old = vm(0, 8);
    let (mut world, _) = World::new(vec![host(0, 0)], vec![old.clone()]);
    assert!(world.take(ToScheduler::Pending(old.clone())).is_empty());
    let new = PendingVm {
        generation: 2,
        ..vm(0, 2)
    };
    assert_eq!(
        proposals(&world.take(ToScheduler::Pending(new.clone()))).len(),
        1
    );
    // The verdict about the old terms says nothing about the new ones.
    assert!(world.verdict(&old, Some("stale")).is_empty());
    assert_eq!(world.state.in_flight, 1);
    world.verdict(&new, None);
    assert_eq!(world.state.in_flight, 0);
}

#[test]
fn a_vm_that_is_gone_gives_its_booking_back() {
    let first = vm(0, 8);
    let (mut world, frames) = World::new(vec![host(0, 0)], vec![first.clone(), vm(1, 8)]);
    assert_eq!(frames.len(), 2);
    assert_eq!(
        proposals(&world.take(ToScheduler::Gone { vm_id: first.id })).len(),
        1
    );
}

#[test]
fn open_proposals_are_bounded_and_go_on_with_the_verdicts() {
    let total = MAX_IN_FLIGHT + 10;
    let vms: Vec<PendingVm> = (0_u32..)
        .take(total)
        .map(|n| PendingVm {
            id: VmId::from_parts(n.into(), [0; 10]),
            datastore: DatastoreName::local(),
            since: Timestamp::from_ms(n.into()),
            resources: Resources::default(),
            generation: 1,
        })
        .collect();
    let (mut world, frames) = World::new(vec![host(0, 0)], vms.clone());
    assert_eq!(frames.len(), MAX_IN_FLIGHT);
    assert_eq!(
        proposals(&world.verdict(&vms[0], None)),
        [(vms[MAX_IN_FLIGHT].id, host(0, 0).id)]
    );
}

#[derive(Clone, Debug)]
enum Happening {
    Host { n: u8, used: u32, connected: bool },
    Pending { n: u8, generation: u64, vcpus: u32 },
    Gone { n: u8 },
    Verdict { n: u8, generation: u64, fine: bool },
    Time(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..3_u8, 0..9_u32, any::<bool>()).prop_map(|(n, used, connected)| Happening::Host {
            n,
            used,
            connected
        }),
        (0..6_u8, 0..3_u64, 1..9_u32).prop_map(|(n, generation, vcpus)| Happening::Pending {
            n,
            generation,
            vcpus
        }),
        (0..6_u8).prop_map(|n| Happening::Gone { n }),
        (0..6_u8, 0..3_u64, any::<bool>()).prop_map(|(n, generation, fine)| Happening::Verdict {
            n,
            generation,
            fine
        }),
        (0..20_u64).prop_map(Happening::Time),
    ]
}

proptest! {
    /// Whatever comes, in whatever order: counts agree with the stages, every
    /// open proposal is booked, and a proposal never exceeds what is free.
    #[test]
    fn the_books_balance(happenings in prop::collection::vec(happening(), 0..60)) {
        let (mut world, _) = World::new(vec![host(0, 0)], vec![]);
        for happening in happenings {
            match happening {
                Happening::Host { n, used, connected } => {
                    let host = HostFacts { connected, ..host(n, used) };
                    world.state.apply(ToScheduler::Host(host), world.now);
                }
                Happening::Pending { n, generation, vcpus } => {
                    let vm = PendingVm { generation, ..vm(n, vcpus) };
                    world.state.apply(ToScheduler::Pending(vm), world.now);
                }
                Happening::Gone { n } => {
                    world.state.apply(ToScheduler::Gone { vm_id: vm(n, 1).id }, world.now);
                }
                Happening::Verdict { n, generation, fine } => {
                    let refused = (!fine).then(|| "no".to_owned());
                    let vm_id = vm(n, 1).id;
                    let verdict = ToScheduler::Verdict { vm_id, generation, refused };
                    world.state.apply(verdict, world.now);
                }
                Happening::Time(seconds) => {
                    world.now += Duration::from_secs(seconds);
                    world.state.expire(world.now);
                }
            }
            let before: HashMap<HostId, HostFacts> = world
                .state
                .hosts
                .iter()
                .map(|(id, host)| (*id, host.facts().clone()))
                .collect();
            let mut promised: HashMap<HostId, u32> = HashMap::new();
            for frame in world.decide() {
                if let FromScheduler::Proposal { vm_id, host_id, .. } = frame {
                    let needs = world.state.waiting[&vm_id].vm.resources.vcpus;
                    *promised.entry(host_id).or_default() += needs;
                }
            }
            for (id, promised) in promised {
                let host = &before[&id];
                prop_assert!(host.connected);
                prop_assert!(promised <= host.capacity.vcpus.saturating_sub(host.used.vcpus));
            }
            let proposed = world
                .state
                .waiting
                .values()
                .filter(|waiting| matches!(waiting.stage, Stage::Proposed { .. }))
                .count();
            prop_assert_eq!(world.state.in_flight, proposed);
            prop_assert_eq!(world.state.queue.len(), world.state.waiting.len());
            let booked: usize = world.state.hosts.values().map(BookedHost::open).sum();
            prop_assert_eq!(booked, proposed);
        }
    }
}

#[test]
fn what_one_host_says_of_a_datastore_holds_for_all_that_reach_it() {
    let shared = |used| DatastoreFacts {
        name: DatastoreName::new("shared").unwrap(),
        id: DatastoreId::from_parts(1, [1; 10]),
        capacity_mib: MiB(100),
        used_mib: MiB(used),
    };
    let with = |n, used| HostFacts {
        datastores: vec![shared(used)],
        ..host(n, 0)
    };
    let waits = PendingVm {
        datastore: DatastoreName::new("shared").unwrap(),
        resources: Resources {
            disk_mib: MiB(60),
            ..resources(1)
        },
        ..vm(1, 1)
    };
    let (mut world, frames) = World::new(vec![with(1, 50), with(2, 50)], vec![waits.clone()]);
    assert!(matches!(frames[..], [FromScheduler::NoHost { .. }]));
    // The other one has room now, too.
    let frames = world.take(ToScheduler::Host(HostFacts {
        state: HostState::Cordoned,
        ..with(1, 10)
    }));
    let [FromScheduler::Proposal { host_id, .. }] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert_eq!(*host_id, host(2, 0).id);
}
