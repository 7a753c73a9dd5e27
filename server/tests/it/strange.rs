//! Hosts that say of themselves what cannot be so.

use serde_json::{Value, json};
use vimana_model::event::{EventKind, EventView};
use vimana_model::host::{HostState, HostView};
use vimana_model::unit::{MiB, Resources};
use vimana_model::vm::{CreateVm, VmView};
use vimana_model::{VmId, VmState};

use crate::agent::{Agent, closed, is_alive};
use crate::fleet::{self, Socket, heard, say};
use crate::watch::Watch;
use crate::world::World;

const SANE: Resources = Resources {
    vcpus: 4,
    memory_mib: MiB(4096),
    disk_mib: MiB(40_960),
};

/// A host with a VM that runs, whose agent has just gone.
pub struct Scene {
    pub world: World,
    pub watch: Watch,
    pub agent: Agent,
    pub vm: VmView,
    sessions: u8,
}

impl Scene {
    pub async fn new() -> Self {
        Self::of(World::new().await).await
    }

    pub async fn of(world: World) -> Self {
        let mut watch = Watch::new(&world).await;
        let mut agent = Agent::joined(&world, 1).await;
        let session = agent.session().await;
        let copy = agent.copy();
        let works = fleet::serve(copy, session);
        let vm = create(&watch, "web-1").await;
        assert_eq!(proposed(&world, vm, &agent).await, None);
        let running = watch.until_vm(vm, VmState::Running).await;
        works.abort();
        watch
            .until(|event| *event == EventKind::HostDisconnected)
            .await;
        Self {
            world,
            watch,
            agent,
            vm: running,
            sessions: 0,
        }
    }

    /// A hello that tells of the VM, and of another machine, so that it is
    /// seen when all of it is taken in.
    pub fn hello(&mut self) -> (Value, VmId) {
        self.sessions += 1;
        let stranger = VmId::from_parts(1, [self.sessions; 10]);
        let mut hello = self.agent.hello();
        hello["inventory"] = json!([
            { "vm_id": self.vm.id, "run_epoch": 1, "power": { "power": "running" } },
            { "vm_id": stranger, "run_epoch": 1, "power": { "power": "off" } },
        ]);
        (hello, stranger)
    }

    /// A session after this hello; all of that is taken in.
    pub async fn session(&mut self, (hello, stranger): (Value, VmId)) -> Socket {
        let session = self.agent.session_with(hello).await;
        let found = EventKind::OrphanFound { machine: stranger };
        self.watch.until(|event| *event == found).await;
        session
    }

    /// The same, with this capacity in it.
    async fn session_with(&mut self, capacity: &Value) -> Socket {
        let (mut hello, stranger) = self.hello();
        hello["capacity"] = capacity.clone();
        self.session((hello, stranger)).await
    }

    pub async fn host(&self) -> HostView {
        self.watch.client.hosts().await.unwrap().remove(0)
    }

    pub async fn vm(&self) -> VmView {
        self.watch.client.vm(self.vm.id).await.unwrap()
    }

    /// Why the host was doubted, each time.
    async fn doubts(&self) -> Vec<String> {
        let timeline = self.watch.client.host_timeline(self.agent.id).await;
        timeline.unwrap().into_iter().filter_map(doubt).collect()
    }

    /// Why it was refused, each time.
    async fn alarms(&self) -> Vec<String> {
        let timeline = self.watch.client.host_timeline(self.agent.id).await;
        timeline.unwrap().into_iter().filter_map(alarm).collect()
    }

    /// The VM runs and holds what it held.
    pub async fn assert_vm_untouched(&self, why: &str) {
        assert_eq!(self.vm().await.state, VmState::Running, "{why}");
        let host = self.host().await;
        assert_eq!((host.vms, host.used), (1, self.vm.resources), "{why}");
    }
}

/// Why a host was doubted, if that is what happened.
fn doubt(entry: EventView) -> Option<String> {
    if let EventKind::HostDoubted { reason } = entry.event {
        return Some(reason);
    }
    None
}

/// Why it was refused, if it was.
fn alarm(entry: EventView) -> Option<String> {
    if let EventKind::HostRefused { reason } = entry.event {
        return Some(reason);
    }
    None
}

async fn create(watch: &Watch, name: &str) -> VmId {
    let form = CreateVm {
        name: name.to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        ..CreateVm::default()
    };
    watch.client.create_vm(&form).await.unwrap().vm.id
}

/// What is answered to a scheduler that would put a pending VM there; nothing
/// where it is done.
pub async fn proposed(world: &World, vm: VmId, agent: &Agent) -> Option<String> {
    let mut scheduler = fleet::scheduler(world).await;
    let snapshot = heard(&mut scheduler).await.unwrap();
    let mut pending = snapshot["pending"].as_array().unwrap().iter();
    let id = json!(vm);
    let waits = pending.find(|waits| waits["id"] == id).unwrap();
    let explanation = json!({ "considered": 1, "rejections": [], "scores": [] });
    let proposal = json!({
        "frame": "proposal", "vm_id": vm, "generation": waits["generation"],
        "host_id": agent.id, "explanation": explanation,
    });
    say(&mut scheduler, proposal).await;
    loop {
        let frame = heard(&mut scheduler).await.unwrap();
        if frame["frame"] == "verdict" {
            return frame["refused"].as_str().map(str::to_owned);
        }
    }
}

#[tokio::test]
async fn a_capacity_that_cannot_be_so_takes_no_vms_and_costs_none() {
    let mut scene = Scene::new().await;
    let waits = create(&scene.watch, "waits").await;
    let capacity = |vcpus: Value, memory_mib: Value, disk_mib: Value| json!({ "vcpus": vcpus, "memory_mib": memory_mib, "disk_mib": disk_mib });
    let less = "less than its VMs have been given";
    let beyond = "beyond any machine";
    let nonsense = "makes no sense";
    for (case, why) in [
        (capacity(json!(4), json!(1), json!(40_960)), less),
        (capacity(json!(0), json!(4096), json!(40_960)), less),
        (capacity(json!(0), json!(0), json!(0)), less),
        (capacity(json!(1_000_000_000), json!(1), json!(1)), beyond),
        (
            capacity(json!(4), json!(1_u64 << 63), json!(40_960)),
            beyond,
        ),
        (capacity(json!(4), json!(4096), json!(u64::MAX)), beyond),
        (capacity(json!(u64::MAX), json!(4096), json!(1)), nonsense),
        (capacity(json!(-1), json!(4096), json!(40_960)), nonsense),
        (capacity(json!(4), json!(-4096), json!(40_960)), nonsense),
        (capacity(json!(4.5), json!(4096), json!(40_960)), nonsense),
        (capacity(json!(4), json!(1e300), json!(40_960)), nonsense),
        // As programs write a NaN.
        (capacity(json!(4), Value::Null, json!(40_960)), nonsense),
        (capacity(json!("4"), json!("much"), json!([])), nonsense),
        (json!({ "vcpus": 4 }), nonsense),
        (Value::Null, nonsense),
    ] {
        let before = scene.doubts().await.len();
        for _ in 0..3 {
            let mut session = scene.session_with(&case).await;
            assert!(is_alive(&mut session).await, "{case}");
            let host = scene.host().await;
            assert!(host.connected, "{case}");
            assert_eq!(host.state, HostState::Doubted, "{case}");
            scene.assert_vm_untouched(&case.to_string()).await;
            let refused = proposed(&scene.world, waits, &scene.agent).await;
            let told = refused.unwrap();
            assert!(told.contains("takes no VMs now"), "{case}: {told}");
        }
        // Said once, and not with every connection.
        let doubts = scene.doubts().await.split_off(before);
        assert!(
            doubts.len() == 1 && doubts[0].contains(why),
            "{case}: {doubts:?}"
        );
        if why != less {
            assert_eq!(scene.host().await.capacity, SANE, "{case}");
        }
        drop(scene.session_with(&json!(SANE)).await);
        let host = scene.host().await;
        assert_eq!((host.state, host.capacity), (HostState::Enabled, SANE));
    }
    let _session = scene.session_with(&json!(SANE)).await;
    assert_eq!(proposed(&scene.world, waits, &scene.agent).await, None);
}

#[tokio::test]
async fn a_hello_that_is_no_json_is_refused_in_words_and_the_alarm_raised_once() {
    let mut scene = Scene::new().await;
    let waits = create(&scene.watch, "waits").await;
    for round in 1..=2 {
        let mut told = String::new();
        for _ in 0..5 {
            let (hello, _) = scene.hello();
            let text = hello.to_string().replace(r#""vcpus":4"#, r#""vcpus":NaN"#);
            let (mut socket, answer) = scene.agent.knock_with(text).await;
            assert_eq!(answer["frame"], "refused");
            told = answer["reason"].as_str().unwrap().to_owned();
            assert!(told.contains("unreadable frame"), "{told}");
            assert!(told.starts_with(&closed(&mut socket).await));
        }
        let host = scene.host().await;
        assert!(!host.connected);
        scene.assert_vm_untouched("refused").await;
        let refused = proposed(&scene.world, waits, &scene.agent).await.unwrap();
        assert!(refused.contains("takes no VMs now"), "{refused}");
        assert_eq!(scene.alarms().await, vec![told; round]);
        drop(scene.session_with(&json!(SANE)).await);
        assert_eq!(scene.host().await.state, HostState::Enabled);
    }
}

#[tokio::test]
async fn a_new_host_with_nothing_to_give_is_doubted_until_it_has() {
    let world = World::new().await;
    let watch = Watch::new(&world).await;
    for (n, capacity, why) in [
        (
            1,
            json!({ "vcpus": 0, "memory_mib": 1, "disk_mib": 1 }),
            "no vCPUs",
        ),
        (
            2,
            json!({ "vcpus": 1, "memory_mib": 0, "disk_mib": 1 }),
            "no memory",
        ),
        (
            3,
            json!({ "vcpus": 1, "memory_mib": 1, "disk_mib": 0 }),
            "no disk",
        ),
        (
            4,
            json!({ "vcpus": -4, "memory_mib": 1, "disk_mib": 1 }),
            r#""vcpus":-4"#,
        ),
    ] {
        let mut agent = Agent::joined(&world, n).await;
        let mut hello = agent.hello();
        hello["capacity"] = capacity;
        let _session = agent.session_with(hello).await;
        let host = async || {
            let hosts = watch.client.hosts().await.unwrap();
            hosts.into_iter().find(|host| host.id == agent.id).unwrap()
        };
        assert_eq!(host().await.state, HostState::Doubted);
        let timeline = watch.client.host_timeline(agent.id).await.unwrap();
        let doubt = timeline.into_iter().find_map(doubt).unwrap();
        assert!(doubt.contains(why), "{doubt}");
        let mut agent = agent.copy();
        let _session = agent.session().await;
        let hosts = watch.client.hosts().await.unwrap();
        let host = hosts.into_iter().find(|host| host.id == agent.id).unwrap();
        assert_eq!((host.state, host.capacity), (HostState::Enabled, SANE));
    }
}

#[tokio::test]
async fn an_inventory_that_contradicts_itself_is_refused_as_a_whole() {
    let mut scene = Scene::new().await;
    let machine = |id: VmId, run: u64, power: &str| json!({ "vm_id": id, "run_epoch": run, "power": { "power": power } });
    let stranger = VmId::from_parts(1, [9; 10]);
    let id = scene.vm.id;
    for (inventory, why) in [
        (
            json!([machine(id, 1, "running"), machine(id, 1, "off")]),
            "reported twice",
        ),
        (json!([machine(id, u64::MAX, "running")]), "in a run above"),
        (json!([machine(stranger, 1 << 63, "off")]), "in a run above"),
        (
            json!([{ "vm_id": id, "run_epoch": -1, "power": { "power": "off" } }]),
            "unreadable",
        ),
        (
            json!([{ "vm_id": "vm_x", "run_epoch": 1, "power": { "power": "off" } }]),
            "unreadable",
        ),
        (json!({ "none": [] }), "unreadable"),
    ] {
        let (mut hello, _) = scene.hello();
        hello["inventory"] = inventory;
        let (mut socket, answer) = scene.agent.knock_with(hello.to_string()).await;
        assert_eq!(answer["frame"], "refused", "{answer}");
        let told = answer["reason"].as_str().unwrap();
        assert!(told.contains(why), "{told}");
        closed(&mut socket).await;
        scene.assert_vm_untouched(why).await;
    }
    let hello = scene.hello();
    let mut session = scene.session(hello).await;
    assert!(is_alive(&mut session).await);
    scene.assert_vm_untouched("afterwards").await;
}
