//! What tenants and users may have: refused where it is more, in the transaction
//! that would accept it, and counted exactly whatever happens to what they have.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

use std::sync::Arc;

use futures::future::join_all;
use vimana_authz::Subject;
use vimana_engine::{ActionArgs, OpContext};
use vimana_model::action::VmAction;
use vimana_model::backup::TakeBackup;
use vimana_model::event::EventKind;
use vimana_model::flavor::CreateFlavor;
use vimana_model::name::{DatastoreName, UserName};
use vimana_model::quota::{Limit, Measure, QuotaLimit, QuotaLine, Scope, SetQuota};
use vimana_model::session::Role;
use vimana_model::snapshot::TakeSnapshot;
use vimana_model::tenant::{CreateTenant, CreateUser, TenantKind};
use vimana_model::unit::MiB;
use vimana_model::vm::{CreateVm, ResizeVm, VmView};
use vimana_model::volume::{CreateVolume, GrowVolume};
use vimana_model::{Error, ErrorKind, TenantId, VmId, VmState};
use vimana_testkit::{PASSWORD, TestHost, TestScheduler, TestWorld};

struct Scene {
    world: TestWorld,
    _hosts: Vec<TestHost>,
    _scheduler: TestScheduler,
}

fn at_most(measure: Measure, most: u64) -> QuotaLimit {
    QuotaLimit {
        measure,
        datastore: None,
        soft: Limit::Unlimited,
        hard: Limit::AtMost(most),
    }
}

impl Scene {
    async fn new() -> Self {
        let world = TestWorld::new().await;
        let mut hosts = Vec::new();
        for number in 1..=2 {
            let mut host = TestHost::new(number).with_datastore("fast", number, MiB(1000));
            host.connect(&world.engine).await;
            hosts.push(host);
        }
        let scheduler = TestScheduler::connect(&world.engine).await;
        Self {
            world,
            _hosts: hosts,
            _scheduler: scheduler,
        }
    }

    fn tenant(&self) -> TenantId {
        self.world.admin.subject.tenant_id
    }

    async fn limit(&self, scope: &Scope, limits: &[QuotaLimit]) {
        let form = SetQuota {
            limits: limits.to_vec(),
        };
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.set_quota(admin, scope, &form).await.unwrap();
    }

    async fn limit_tenant(&self, limits: &[QuotaLimit]) {
        self.limit(&Scope::Tenant(self.tenant()), limits).await;
    }

    async fn lines(&self) -> Vec<QuotaLine> {
        let own = self.world.engine.own_quota(&self.world.admin).await;
        own.unwrap().tenant
    }

    async fn used(&self, measure: Measure) -> u64 {
        let lines = self.lines().await;
        let mut lines = lines.iter();
        let line = lines.find(|line| line.counted() == measure.into());
        line.unwrap().used
    }

    /// `(VMs, running VMs, operations)`.
    async fn vms(&self) -> (u64, u64, u64) {
        (
            self.used(Measure::Vms).await,
            self.used(Measure::RunningVms).await,
            self.used(Measure::Operations).await,
        )
    }

    async fn ask(&self, name: &str) -> Result<VmView, Error> {
        self.ask_as(&self.world.admin, name).await
    }

    async fn ask_as(&self, cx: &OpContext, name: &str) -> Result<VmView, Error> {
        let form = CreateVm {
            name: name.to_owned(),
            image: "demo".to_owned(),
            flavor: "tiny".to_owned(),
            ..CreateVm::default()
        };
        let accepted = self.world.engine.create_vm(cx, &form).await;
        accepted.map(|accepted| accepted.vm)
    }

    async fn running(&self, name: &str) -> VmId {
        let id = self.ask(name).await.unwrap().id;
        self.world.until(id, VmState::Running).await;
        self.world.until_rest(id).await;
        id
    }

    async fn act(&self, id: VmId, action: VmAction, args: ActionArgs) -> Result<(), Error> {
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.act_on_vm(admin, id, action, args).await.map(drop)
    }

    async fn rests(&self, id: VmId, action: VmAction, state: VmState) {
        self.act(id, action, ActionArgs::None).await.unwrap();
        self.world.until(id, state).await;
        self.world.until_rest(id).await;
    }

    /// The same user with another role.
    fn with_role(&self, role: Role) -> OpContext {
        let subject = Subject {
            staff: None,
            role,
            ..Subject::clone(&self.world.admin.subject)
        };
        OpContext {
            subject: Arc::new(subject),
            idempotency: None,
        }
    }

    async fn user(&self, name: &str, tenant: &str, role: Role) -> OpContext {
        let form = CreateUser {
            name: name.to_owned(),
            password: PASSWORD.to_owned(),
            tenant: tenant.to_owned(),
            role,
        };
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        let user = engine.create_user(admin, &form).await.unwrap();
        OpContext::new(engine.subject_of_user(user.id).await.unwrap())
    }

    async fn volume(&self, name: &str, size: u64, datastore: &str) -> Result<(), Error> {
        let form = CreateVolume {
            name: name.to_owned(),
            size_mib: MiB(size),
            datastore: Some(datastore.to_owned()),
            ..CreateVolume::default()
        };
        let (engine, admin) = (&self.world.engine, &self.world.admin);
        engine.create_volume(admin, &form).await.map(drop)
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, sentence: &str) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OverQuota, "{error:?}");
    assert_eq!(error.public, sentence);
}

#[tokio::test]
async fn one_vm_more_than_allowed_is_refused_until_one_goes() {
    let scene = Scene::new().await;
    scene.limit_tenant(&[at_most(Measure::Vms, 1)]).await;
    let first = scene.running("web-1").await;
    refused(
        scene.ask("web-2").await,
        "the quota of tenant `default` for VMs is 1: 1 in use, and this needs 1 more",
    );
    assert_eq!(scene.vms().await, (1, 1, 0));
    scene.rests(first, VmAction::Delete, VmState::Done).await;
    assert_eq!(scene.vms().await, (0, 0, 0));
    scene.running("web-2").await;
}

#[tokio::test]
async fn of_fifty_at_once_exactly_ten_are_accepted() {
    let scene = Scene::new().await;
    scene.limit_tenant(&[at_most(Measure::Vms, 10)]).await;
    let names: Vec<_> = (0..50).map(|number| format!("web-{number}")).collect();
    let answers = join_all(names.iter().map(|name| scene.ask(name))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (10, 40));
    for answer in refused {
        assert_eq!(answer.unwrap_err().kind, ErrorKind::OverQuota);
    }
    assert_eq!(scene.used(Measure::Vms).await, 10);
}

#[tokio::test]
async fn what_rests_starts_again_only_where_it_may_run() {
    let scene = Scene::new().await;
    scene.limit_tenant(&[at_most(Measure::RunningVms, 1)]).await;
    let sentence =
        "the quota of tenant `default` for running VMs is 1: 1 in use, and this needs 1 more";
    for (rest, state, wake) in [
        (VmAction::PowerOff, VmState::PoweredOff, VmAction::Start),
        (VmAction::Suspend, VmState::Suspended, VmAction::Resume),
        (VmAction::Stop, VmState::Stopped, VmAction::Resume),
    ] {
        let first = scene.running("first").await;
        refused(scene.ask("second").await, sentence);
        scene.rests(first, rest, state).await;
        assert_eq!(scene.vms().await, (1, 0, 0), "{state}");
        let second = scene.running("second").await;
        refused(scene.act(first, wake, ActionArgs::None).await, sentence);
        assert_eq!(scene.vms().await, (2, 1, 0), "{state}");
        assert_eq!(scene.world.vm(first).await.state, state);
        scene.rests(second, VmAction::Delete, VmState::Done).await;
        scene.rests(first, wake, VmState::Running).await;
        assert_eq!(scene.vms().await, (1, 1, 0), "{state}");
        scene.rests(first, VmAction::Delete, VmState::Done).await;
    }
    assert_eq!(scene.vms().await, (0, 0, 0));
}

#[tokio::test]
async fn what_is_held_back_does_not_run() {
    let scene = Scene::new().await;
    scene.limit_tenant(&[at_most(Measure::RunningVms, 1)]).await;
    let first = scene.ask("first").await.unwrap().id;
    scene.world.until(first, VmState::Running).await;
    let form = CreateVm {
        name: "held".to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        hold: true,
        ..CreateVm::default()
    };
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let held = engine.create_vm(admin, &form).await.unwrap().vm.id;
    refused(
        scene.act(held, VmAction::Release, ActionArgs::None).await,
        "the quota of tenant `default` for running VMs is 1: 1 in use, and this needs 1 more",
    );
    assert_eq!(scene.world.vm(held).await.state, VmState::Hold);
    scene
        .rests(first, VmAction::PowerOff, VmState::PoweredOff)
        .await;
    scene
        .act(held, VmAction::Release, ActionArgs::None)
        .await
        .unwrap();
    scene.world.until(held, VmState::Running).await;
}

#[tokio::test]
async fn a_larger_size_must_fit_and_is_taken_at_once() {
    let scene = Scene::new().await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let flavor = CreateFlavor {
        name: "double".to_owned(),
        vcpus: 2,
        memory_mib: MiB(512),
        disk_mib: MiB(1024),
    };
    engine.create_flavor(admin, &flavor).await.unwrap();
    let vm = scene.running("web").await;
    let memory = scene.used(Measure::MemoryMib).await;
    let to = |flavor: &str| {
        ActionArgs::Resize(ResizeVm {
            flavor: Some(flavor.to_owned()),
            ..ResizeVm::default()
        })
    };
    scene
        .limit_tenant(&[at_most(Measure::RunningVcpus, 1)])
        .await;
    refused(
        scene.act(vm, VmAction::Resize, to("double")).await,
        "the quota of tenant `default` for running vCPUs is 1: 1 in use, and this needs 1 more",
    );
    scene
        .limit_tenant(&[at_most(Measure::MemoryMib, memory)])
        .await;
    scene
        .rests(vm, VmAction::PowerOff, VmState::PoweredOff)
        .await;
    let error = scene
        .act(vm, VmAction::Resize, to("double"))
        .await
        .unwrap_err();
    assert!(error.public.contains("for memory is"), "{}", error.public);
    // Running memory is not what is limited now.
    scene
        .limit_tenant(&[at_most(Measure::RunningMemoryMib, memory)])
        .await;
    scene.act(vm, VmAction::Resize, to("double")).await.unwrap();
    scene.world.until_rest(vm).await;
    assert_eq!(scene.used(Measure::MemoryMib).await, 512);
    let error = scene
        .act(vm, VmAction::Start, ActionArgs::None)
        .await
        .unwrap_err();
    assert!(
        error.public.contains("for running memory is"),
        "{}",
        error.public
    );
    scene.limit_tenant(&[]).await;
    scene.rests(vm, VmAction::Start, VmState::Running).await;
    assert_eq!(scene.used(Measure::RunningMemoryMib).await, 512);
}

#[tokio::test]
async fn below_what_is_in_use_nothing_new_is_accepted_and_all_can_be_given_back() {
    let scene = Scene::new().await;
    let (first, second) = (scene.running("first").await, scene.running("second").await);
    let all = Measure::ALL.map(|measure| at_most(measure, 0));
    scene.limit_tenant(&all).await;
    assert_eq!(
        scene.ask("third").await.unwrap_err().kind,
        ErrorKind::OverQuota
    );
    let snapshot = ActionArgs::TakeSnapshot(TakeSnapshot {
        name: "early".to_owned(),
        ..TakeSnapshot::default()
    });
    for (action, args) in [
        (VmAction::Snapshot, snapshot),
        (VmAction::Backup, ActionArgs::Backup(TakeBackup::default())),
        (VmAction::Reboot, ActionArgs::None),
    ] {
        let refused = scene.act(first, action, args).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::OverQuota, "{action}");
    }
    let volume = scene.volume("data", 1, "local").await.unwrap_err();
    assert_eq!(volume.kind, ErrorKind::OverQuota);
    scene
        .rests(first, VmAction::PowerOff, VmState::PoweredOff)
        .await;
    scene
        .rests(second, VmAction::Suspend, VmState::Suspended)
        .await;
    for vm in [first, second] {
        scene.rests(vm, VmAction::Delete, VmState::Done).await;
    }
    let lines = scene.lines().await;
    let left: Vec<_> = lines.iter().filter(|line| line.used > 0).collect();
    assert!(
        left.iter().all(|line| line.measure == Measure::Images),
        "{left:#?}"
    );
}

#[tokio::test]
async fn volumes_are_counted_in_each_datastore() {
    let scene = Scene::new().await;
    let mut in_fast = at_most(Measure::VolumeMib, 150);
    in_fast.datastore = Some(DatastoreName::new("fast").unwrap());
    let all = [
        in_fast,
        at_most(Measure::VolumeMib, 350),
        at_most(Measure::Volumes, 3),
    ];
    scene.limit_tenant(&all).await;
    scene.volume("one", 100, "fast").await.unwrap();
    refused(
        scene.volume("two", 100, "fast").await,
        "the quota of tenant `default` for volume storage in datastore `fast` is 150 MiB: 100 MiB \
         in use, and this needs 100 MiB more",
    );
    scene.volume("two", 150, "local").await.unwrap();
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let one = engine.volumes(admin).await.unwrap();
    let one = one
        .iter()
        .find(|volume| volume.name.as_str() == "one")
        .unwrap();
    let grow = async |size| {
        let form = GrowVolume {
            size_mib: MiB(size),
        };
        engine.grow_volume(admin, one.id, form).await
    };
    refused(
        grow(151).await,
        "the quota of tenant `default` for volume storage in datastore `fast` is 150 MiB: 100 MiB \
         in use, and this needs 51 MiB more",
    );
    grow(150).await.unwrap();
    refused(
        scene.volume("three", 51, "local").await,
        "the quota of tenant `default` for volume storage is 350 MiB: 300 MiB in use, and this \
         needs 51 MiB more",
    );
    engine.delete_volume(admin, one.id).await.unwrap();
    assert_eq!(scene.used(Measure::VolumeMib).await, 150);
    assert_eq!(scene.used(Measure::Volumes).await, 1);
}

#[tokio::test]
async fn a_user_has_limits_within_the_tenants() {
    let scene = Scene::new().await;
    let tenant = scene.tenant();
    let ann = scene.user("ann", "default", Role::Operator).await;
    let bob = scene.user("bob", "default", Role::Operator).await;
    scene
        .limit(&Scope::AllTenants, &[at_most(Measure::Vms, 3)])
        .await;
    scene
        .limit(&Scope::AllUsers(tenant), &[at_most(Measure::Vms, 1)])
        .await;
    scene.ask_as(&ann, "ann-1").await.unwrap();
    refused(
        scene.ask_as(&ann, "ann-2").await,
        "the quota of user `ann` for VMs is 1: 1 in use, and this needs 1 more",
    );
    let of_ann = Scope::User(tenant, UserName::new("ann").unwrap());
    let no_limit = QuotaLimit {
        hard: Limit::Unlimited,
        ..at_most(Measure::Vms, 0)
    };
    scene.limit(&of_ann, &[no_limit]).await;
    scene.ask_as(&ann, "ann-2").await.unwrap();
    scene.ask_as(&bob, "bob-1").await.unwrap();
    refused(
        scene.ask_as(&ann, "ann-3").await,
        "the quota of tenant `default` for VMs is 3: 3 in use, and this needs 1 more",
    );
    let own = scene.world.engine.own_quota(&ann).await.unwrap();
    let of = |lines: &[QuotaLine]| {
        let line = lines.iter().find(|line| line.measure == Measure::Vms);
        let line = line.unwrap();
        (line.used, line.hard, line.inherited)
    };
    assert_eq!(of(&own.tenant), (3, Limit::AtMost(3), true));
    assert_eq!(of(&own.user), (2, Limit::Unlimited, false));
}

#[tokio::test]
async fn above_a_soft_limit_it_is_done_and_told() {
    let scene = Scene::new().await;
    let soft = QuotaLimit {
        soft: Limit::AtMost(1),
        ..at_most(Measure::Vms, 3)
    };
    scene.limit_tenant(&[soft]).await;
    let warnings = async |id: VmId| {
        let events = scene.world.engine.vm_timeline(&scene.world.admin, id).await;
        let events = events.unwrap().into_iter();
        let notes = events.filter_map(|event| {
            if let EventKind::Note { text } = event.event {
                Some(text)
            } else {
                None
            }
        });
        notes.collect::<Vec<_>>()
    };
    let first = scene.running("first").await;
    assert_eq!(warnings(first).await, Vec::<String>::new());
    let second = scene.running("second").await;
    assert_eq!(
        warnings(second).await,
        ["The quota of tenant `default` for VMs warns above 1: 2 in use"]
    );
    // It has been told.
    let third = scene.running("third").await;
    assert_eq!(warnings(third).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_manager_shares_out_and_never_raises_what_the_tenant_has() {
    let scene = Scene::new().await;
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let form = CreateTenant {
        name: "acme".to_owned(),
        kind: TenantKind::Automatic,
    };
    let acme = engine.create_tenant(admin, &form).await.unwrap().id;
    let manager = scene.user("meg", "acme", Role::Manager).await;
    let viewer = scene.user("vic", "acme", Role::Viewer).await;
    let form = SetQuota {
        limits: vec![at_most(Measure::Vms, 1000)],
    };
    let vic = Scope::User(acme, UserName::new("vic").unwrap());
    let kind = |answer: Result<_, Error>| answer.map(drop).map_err(|error| error.kind);
    let set = async |cx: &OpContext, scope: &Scope| kind(engine.set_quota(cx, scope, &form).await);
    let forbidden = Err(ErrorKind::Forbidden);
    assert_eq!(set(&manager, &Scope::Tenant(acme)).await, forbidden);
    assert_eq!(set(&manager, &Scope::AllTenants).await, forbidden);
    assert_eq!(set(&manager, &vic).await, Ok(()));
    assert_eq!(set(&manager, &Scope::AllUsers(acme)).await, Ok(()));
    assert_eq!(set(&viewer, &vic).await, forbidden);
    // Of another tenant nobody learns whether it is there.
    let nowhere = TenantId::from_parts(1, [9; 10]);
    let sentence = |answer: Result<_, Error>| answer.map(drop).unwrap_err().public;
    for scope in [Scope::Tenant, Scope::AllUsers] {
        let (other, absent) = (scope(scene.tenant()), scope(nowhere));
        let hidden = [
            (
                engine.quota(&manager, &other).await,
                engine.quota(&manager, &absent).await,
            ),
            (
                engine.set_quota(&manager, &other, &form).await,
                engine.set_quota(&manager, &absent, &form).await,
            ),
        ];
        for (other, absent) in hidden {
            let id = scene.tenant().to_string();
            let other = sentence(other).replace(&id, &nowhere.to_string());
            assert_eq!(other, sentence(absent));
        }
    }
    let stranger = Scope::User(acme, UserName::new("admin").unwrap());
    assert_eq!(set(&manager, &stranger).await, Err(ErrorKind::NotFound));
    assert_eq!(
        kind(engine.quota(&viewer, &Scope::Tenant(acme)).await),
        Ok(())
    );
    let old = scene.with_role(Role::Viewer);
    assert_eq!(
        kind(engine.quota(&old, &Scope::AllTenants).await),
        forbidden
    );
}

#[tokio::test]
async fn a_volume_grows_back_with_a_snapshot_only_where_it_may() {
    let scene = Scene::new().await;
    let vm = scene.running("web").await;
    scene.volume("data", 50, "local").await.unwrap();
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    let volumes = engine.volumes(admin).await.unwrap();
    let id = volumes.first().unwrap().id;
    scene
        .act(vm, VmAction::Attach, ActionArgs::Volume(id))
        .await
        .unwrap();
    scene.world.until_rest(vm).await;
    scene
        .rests(vm, VmAction::PowerOff, VmState::PoweredOff)
        .await;
    let snapshot = async |name: &str| {
        let form = TakeSnapshot {
            name: name.to_owned(),
            ..TakeSnapshot::default()
        };
        scene
            .act(vm, VmAction::Snapshot, ActionArgs::TakeSnapshot(form))
            .await
            .unwrap();
        scene.world.until_rest(vm).await;
        let taken = engine.vm_snapshots(admin, vm).await.unwrap();
        taken
            .into_iter()
            .find(|taken| taken.name.as_str() == name)
            .unwrap()
            .id
    };
    let small = snapshot("small").await;
    let form = GrowVolume { size_mib: MiB(100) };
    engine.grow_volume(admin, id, form).await.unwrap();
    scene.world.until_rest(vm).await;
    let large = snapshot("large").await;
    scene
        .act(vm, VmAction::Revert, ActionArgs::Snapshot(small))
        .await
        .unwrap();
    scene.world.until_rest(vm).await;
    assert_eq!(scene.used(Measure::VolumeMib).await, 50);
    scene.limit_tenant(&[at_most(Measure::VolumeMib, 99)]).await;
    refused(
        scene
            .act(vm, VmAction::Revert, ActionArgs::Snapshot(large))
            .await,
        "the quota of tenant `default` for volume storage is 99 MiB: 50 MiB in use, and this needs \
         50 MiB more",
    );
    assert_eq!(scene.used(Measure::VolumeMib).await, 50);
}

#[tokio::test]
async fn what_is_held_takes_no_turn() {
    let scene = Scene::new().await;
    scene.limit_tenant(&[at_most(Measure::Operations, 1)]).await;
    let form = CreateVm {
        name: "held".to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        hold: true,
        ..CreateVm::default()
    };
    let (engine, admin) = (&scene.world.engine, &scene.world.admin);
    engine.create_vm(admin, &form).await.unwrap();
    assert_eq!(scene.vms().await, (1, 0, 0));
    scene.running("web").await;
}
