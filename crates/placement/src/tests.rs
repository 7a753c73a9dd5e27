use proptest::prelude::*;
use vimana_model::DatastoreId;
use vimana_model::host::HostState;
use vimana_model::name::{HostName, ZoneName};
use vimana_model::unit::MiB;

use super::*;

fn resources(vcpus: u32, memory: u64, disk: u64) -> Resources {
    Resources {
        vcpus,
        memory_mib: MiB(memory),
        disk_mib: MiB(disk),
    }
}

fn host(n: u8, capacity: Resources, used: Resources) -> HostFacts {
    HostFacts {
        id: HostId::from_parts(u64::from(n), [n; 10]),
        name: HostName::new(format!("host-{}", char::from(b'a' + n % 26))).unwrap(),
        zone: ZoneName::new("default").unwrap(),
        state: HostState::Enabled,
        connected: true,
        capacity,
        used,
        datastores: Vec::new(),
    }
}

fn place<'a>(needs: Resources, hosts: impl IntoIterator<Item = &'a HostFacts>) -> Decision {
    super::place(&needs.into(), hosts)
}

fn empty(n: u8) -> HostFacts {
    host(n, resources(8, 9728, 102_400), Resources::default())
}

#[test]
fn the_emptier_host_is_chosen() {
    let busy = host(0, resources(8, 8192, 8192), resources(4, 1024, 1024));
    let idle = host(1, resources(8, 8192, 8192), resources(1, 1024, 1024));
    let decision = place(resources(1, 512, 512), [&busy, &idle]);
    assert_eq!(decision.host, Some(idle.id));
    let names: Vec<&str> = decision
        .explanation
        .scores
        .iter()
        .map(|s| s.host.as_str())
        .collect();
    assert_eq!(names, ["host-b", "host-a"]);
    assert_eq!(
        summary(&decision.explanation),
        "`host-b` is the best of 2 hosts"
    );
}

#[test]
fn the_scarcest_resource_decides() {
    let no_memory_left = host(0, resources(100, 1000, 1000), resources(0, 900, 0));
    let even = host(1, resources(100, 1000, 1000), resources(50, 500, 500));
    let decision = place(resources(1, 10, 10), [&no_memory_left, &even]);
    assert_eq!(decision.host, Some(even.id));
}

#[test]
fn equal_hosts_are_told_apart_by_name() {
    let (a, b) = (empty(0), empty(1));
    let needs = resources(1, 1, 1);
    assert_eq!(place(needs, [&a, &b]).host, Some(a.id));
    assert_eq!(place(needs, [&b, &a]).host, Some(a.id));
}

#[test]
fn lacking_memory_is_explained_with_numbers() {
    let decision = place(resources(4, 65_536, 10), [&empty(0), &empty(1)]);
    assert_eq!(decision.host, None);
    let rejection = &decision.explanation.rejections[0];
    assert_eq!((rejection.filter, rejection.count), (Filter::Memory, 2));
    assert_eq!(
        summary(&decision.explanation),
        "none of 2 hosts has room: host-a and host-b lack memory \
         (needs 64 GiB; the roomiest host has 9.5 GiB free)"
    );
}

#[test]
fn lacking_vcpus_names_the_roomiest_host() {
    let two_left = host(0, resources(8, 100, 100), resources(6, 0, 0));
    let decision = place(resources(4, 1, 1), [&two_left]);
    assert_eq!(
        decision.explanation.rejections[0].reason,
        "needs 4 vCPUs; the roomiest host has 2 free"
    );
    assert_eq!(
        summary(&decision.explanation),
        "the only host has no room: host-a lacks vCPUs \
         (needs 4 vCPUs; the roomiest host has 2 free)"
    );
}

#[test]
fn each_host_counts_under_its_first_filter() {
    let gone = HostFacts {
        connected: false,
        state: HostState::Unknown,
        ..empty(0)
    };
    let silent = HostFacts {
        state: HostState::Unknown,
        ..empty(1)
    };
    let full = host(2, resources(8, 100, 100), resources(0, 0, 100));
    let decision = place(resources(1, 1, 1), [&gone, &silent, &full]);
    let filters: Vec<Filter> = decision
        .explanation
        .rejections
        .iter()
        .map(|r| r.filter)
        .collect();
    assert_eq!(filters, [Filter::Connected, Filter::Enabled, Filter::Disk]);
    assert_eq!(
        summary(&decision.explanation),
        "none of 3 hosts has room: host-a is not connected; host-b takes no new VMs; \
         host-c lacks disk (needs 1 MiB; the roomiest host has 0 MiB free)"
    );
}

#[test]
fn what_is_wanted_of_hosts_is_said_of_each() {
    let states = [
        HostState::Cordoned,
        HostState::Draining,
        HostState::Maintenance,
        HostState::Cordoned,
        HostState::Draining,
    ];
    let hosts: Vec<HostFacts> = (0..)
        .zip(states)
        .map(|(n, state)| HostFacts { state, ..empty(n) })
        .collect();
    let needs = resources(1, 1, 1);
    let decision = place(needs, &hosts);
    assert_eq!(decision.host, None);
    assert_eq!(
        summary(&decision.explanation),
        "none of 5 hosts has room: host-a and host-d are cordoned; host-b and host-e drain; \
         host-c is in maintenance"
    );
    let reasons = decision.explanation.rejections.iter();
    let reasons: Vec<&str> = reasons.map(|rejection| rejection.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "the host is cordoned",
            "the host drains",
            "the host is in maintenance"
        ]
    );
    for state in HostState::ALL {
        let one = HostFacts { state, ..empty(0) };
        assert_eq!(
            fits(&needs.into(), &one),
            state.takes_vms().is_ok(),
            "{state}"
        );
    }
}

#[test]
fn no_hosts_and_no_connected_hosts_are_said_plainly() {
    let none = place(resources(1, 1, 1), []);
    assert_eq!(summary(&none.explanation), "no host has joined yet");
    let gone = HostFacts {
        connected: false,
        ..empty(0)
    };
    let decision = place(resources(1, 1, 1), [&gone]);
    assert_eq!(summary(&decision.explanation), "no host is connected");
}

#[test]
fn many_hosts_are_counted_not_listed() {
    let hosts: Vec<HostFacts> = (0..20).map(empty).collect();
    let decision = place(resources(64, 1, 1), &hosts);
    let rejection = &decision.explanation.rejections[0];
    assert_eq!((rejection.hosts.len(), rejection.count), (16, 20));
    assert_eq!(
        summary(&decision.explanation),
        "none of 20 hosts has room: host-a, host-b, host-c and 17 more lack vCPUs \
         (needs 64 vCPUs; the roomiest host has 8 free)"
    );
}

fn any_resources() -> impl Strategy<Value = Resources> {
    // Small ranges so that fits and near misses both happen; the extremes so
    // that nothing overflows.
    let amount = || prop_oneof![8 => 0_u64..16, 1 => Just(u64::MAX)];
    (
        prop_oneof![8 => 0_u32..16, 1 => Just(u32::MAX)],
        amount(),
        amount(),
    )
        .prop_map(|(vcpus, memory, disk)| resources(vcpus, memory, disk))
}

fn any_hosts() -> impl Strategy<Value = Vec<HostFacts>> {
    let one = (
        any_resources(),
        any_resources(),
        any::<bool>(),
        any::<bool>(),
    );
    prop::collection::vec(one, 0..40).prop_map(|all| {
        (0..)
            .zip(all)
            .map(|(n, (capacity, used, connected, enabled))| HostFacts {
                connected,
                state: if enabled {
                    HostState::Enabled
                } else {
                    HostState::Unknown
                },
                ..host(n, capacity, used)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_host_without_room_is_never_picked(needs in any_resources(), hosts in any_hosts()) {
        let decision = place(needs, &hosts);
        let eligible = hosts.iter().filter(|host| fits(&needs.into(), host)).count();
        match decision.host {
            None => prop_assert_eq!(eligible, 0),
            Some(id) => {
                let chosen = hosts.iter().find(|host| host.id == id).unwrap();
                let free = chosen.capacity.saturating_sub(chosen.used);
                prop_assert!(chosen.connected && chosen.state == HostState::Enabled);
                prop_assert!(needs.vcpus <= free.vcpus);
                prop_assert!(needs.memory_mib <= free.memory_mib);
                prop_assert!(needs.disk_mib <= free.disk_mib);
            }
        }
    }

    #[test]
    fn every_host_is_rejected_once_or_eligible(needs in any_resources(), hosts in any_hosts()) {
        let explanation = place(needs, &hosts).explanation;
        let rejected: usize = explanation.rejections.iter().map(|r| r.count as usize).sum();
        let eligible = hosts.iter().filter(|host| fits(&needs.into(), host)).count();
        prop_assert_eq!(explanation.considered as usize, hosts.len());
        prop_assert_eq!(rejected + eligible, hosts.len());
        prop_assert_eq!(explanation.scores.len(), eligible.min(MAX_SCORED_HOSTS));
        for score in &explanation.scores {
            prop_assert!((0.0..=1.0).contains(&score.score));
        }
    }

    #[test]
    fn the_order_of_hosts_does_not_matter(
        needs in any_resources(),
        (hosts, shuffled) in any_hosts()
            .prop_flat_map(|hosts| (Just(hosts.clone()), Just(hosts).prop_shuffle())),
    ) {
        prop_assert_eq!(place(needs, &hosts), place(needs, &shuffled));
    }
}

#[test]
fn a_disk_in_a_datastore_asks_for_its_room_and_not_for_the_hosts() {
    let shared = |used| DatastoreFacts {
        name: DatastoreName::new("shared").unwrap(),
        id: DatastoreId::from_parts(1, [1; 10]),
        capacity_mib: MiB(10_000),
        used_mib: MiB(used),
    };
    let size = resources(8, 8192, 10);
    let with = |n, used| HostFacts {
        datastores: vec![shared(used)],
        ..host(n, size, Resources::default())
    };
    let (without, full, roomy) = (empty(0), with(1, 9000), with(2, 4000));
    let needs = |disk| Needs {
        resources: resources(1, 512, disk),
        datastore: DatastoreName::new("shared").unwrap(),
    };
    let decision = super::place(&needs(2000), [&without, &full, &roomy]);
    assert_eq!(decision.host, Some(roomy.id));
    let decision = super::place(&needs(7000), [&without, &full, &roomy]);
    assert_eq!(
        summary(&decision.explanation),
        "none of 3 hosts has room: host-a lacks the datastore (there is no datastore `shared`); \
         host-b and host-c lack disk (needs 6.8 GiB; the roomiest host has 5.8 GiB free)"
    );
    assert!(fits(&needs(6000), &roomy) && !fits(&needs(6001), &roomy));
}
