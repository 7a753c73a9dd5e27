//! What the simulation adds to saving, loading and moving machines: counters,
//! planned mishaps, the log of runs, and files that are none.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vimana_driver::conformance::new_vm;
use vimana_driver::{
    DiskPlan, Fault, FaultKind, HostDriver as _, ImageRef, IncarnationSpec, Part, Power, Seed,
};
use vimana_driver_sim::{Call, Course, Mishap, Moment, RunLog, SimDriver, SimHost};
use vimana_model::ImageId;
use vimana_model::image::ImageFormat;
use vimana_model::name::DatastoreName;
use vimana_model::unit::Resources;

fn spec(run_epoch: u64) -> IncarnationSpec {
    IncarnationSpec {
        vm_id: new_vm(),
        run_epoch,
        resources: Resources::default(),
        datastore: DatastoreName::local(),
        image: ImageRef {
            id: ImageId::from_parts(1, [0; 10]),
            format: ImageFormat::Qcow2,
            size_bytes: 1,
            sha256: String::new(),
        },
        seed: Seed {
            host_name: "web-1".to_owned(),
            ssh_key: None,
            user_data: None,
        },
    }
}

async fn run(driver: &SimDriver) -> IncarnationSpec {
    let spec = spec(1);
    driver.prepare(&spec, Path::new("")).await.unwrap();
    driver.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    spec
}

#[tokio::test(start_paused = true)]
async fn a_machine_moves_between_hosts_without_a_real_file() {
    let log = RunLog::new();
    let [a, b] = ["a", "b"].map(|name| SimHost::logged(name, Arc::clone(&log)));
    let (from, to) = (
        SimDriver::new(Arc::clone(&a)),
        SimDriver::new(Arc::clone(&b)),
    );
    let mut spec = run(&from).await;
    let vm = spec.vm_id;
    from.save(vm, 1).await.unwrap();
    let files = from.export(vm, 1, &DiskPlan::default()).await.unwrap();
    assert_eq!(
        files.iter().map(|(part, _)| *part).collect::<Vec<_>>(),
        Part::OWN
    );
    spec.run_epoch = 2;
    let nothing = to
        .import(&spec, Path::new(""), &files, &DiskPlan::default())
        .await
        .unwrap_err();
    assert_eq!(
        nothing.kind,
        FaultKind::Host,
        "the other host has no such file"
    );
    for (_, path) in &files {
        assert!(!path.exists());
        b.write_file(path, a.read_file(path).unwrap());
    }
    to.import(&spec, Path::new(""), &files, &DiskPlan::default())
        .await
        .unwrap();
    from.clean(vm, 1).await.unwrap();
    assert!(a.read_file(&files[0].1).is_err());
    to.load(vm, 2).await.unwrap();
    assert_eq!(
        b.boots(vm),
        Some(1),
        "it was started once, on the other host"
    );
    assert_eq!((a.effects(vm).exported, b.effects(vm).imported), (1, 1));
    let moments: Vec<_> = log
        .entries()
        .iter()
        .map(|e| (e.run_epoch, e.moment))
        .collect();
    let wanted = [
        (1, Moment::Started),
        (1, Moment::Ended),
        (2, Moment::Started),
    ];
    assert_eq!(moments, wanted);
    assert_eq!(log.breaches(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn files_are_real_where_a_directory_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let host = SimHost::new();
    host.keep_files_in(dir.path());
    let driver = SimDriver::new(Arc::clone(&host));
    let spec = run(&driver).await;
    driver.save(spec.vm_id, 1).await.unwrap();
    let files = driver
        .export(spec.vm_id, 1, &DiskPlan::default())
        .await
        .unwrap();
    for (_, path) in &files {
        assert_eq!(std::fs::read(path).unwrap(), host.read_file(path).unwrap());
    }
    driver.clean(spec.vm_id, 1).await.unwrap();
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[tokio::test(start_paused = true)]
async fn two_hosts_that_run_one_machine_are_caught() {
    let log = RunLog::new();
    let [a, b] = ["a", "b"].map(|name| SimDriver::new(SimHost::logged(name, Arc::clone(&log))));
    let spec = run(&a).await;
    b.prepare(&spec, Path::new("")).await.unwrap();
    b.boot(spec.vm_id, 1, &spec.resources).await.unwrap();
    assert_eq!(log.breaches().len(), 1);
    assert_eq!(log.starts(spec.vm_id), 2);
}

#[tokio::test(start_paused = true)]
async fn lost_answer_has_its_effect_and_the_repetition_none() {
    let host = SimHost::new();
    let driver = SimDriver::new(Arc::clone(&host));
    let spec = run(&driver).await;
    let lost = Fault::new(FaultKind::Host, "the agent was killed");
    host.mishap(Call::Save, Mishap::FailAfter(lost.clone()));
    assert_eq!(driver.save(spec.vm_id, 1).await, Err(lost));
    assert_eq!(host.power(spec.vm_id), Some(Power::Saved));
    driver.save(spec.vm_id, 1).await.unwrap();
    assert_eq!(host.effects(spec.vm_id).saved, 1);
}

#[tokio::test(start_paused = true)]
async fn panics_come_before_or_after_the_effect() {
    let host = SimHost::new();
    let driver = Arc::new(SimDriver::new(Arc::clone(&host)));
    let spec = run(&driver).await;
    for (mishap, saved) in [(Mishap::Panic, 0), (Mishap::PanicAfter, 1)] {
        host.mishap(Call::Save, mishap);
        let (driver, vm) = (Arc::clone(&driver), spec.vm_id);
        let call = tokio::spawn(async move { driver.save(vm, 1).await });
        assert!(call.await.unwrap_err().is_panic());
        assert_eq!(host.effects(spec.vm_id).saved, saved);
    }
}

#[tokio::test(start_paused = true)]
async fn director_decides_each_call() {
    let host = SimHost::new();
    let driver = SimDriver::new(Arc::clone(&host));
    let (lucky, unlucky) = (run(&driver).await, run(&driver).await);
    let victim = unlucky.vm_id;
    host.direct(Box::new(move |call, vm| {
        let fault = Fault::new(FaultKind::NoSpace, "the disk is full");
        Course {
            before: Duration::from_secs(5),
            mishap: (call == Call::Save && vm == Some(victim)).then_some(Mishap::Fail(fault)),
            after: Duration::from_secs(7),
        }
    }));
    let since = tokio::time::Instant::now();
    driver.save(lucky.vm_id, 1).await.unwrap();
    assert_eq!(since.elapsed(), Duration::from_secs(12));
    let fault = driver.save(victim, 1).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NoSpace);
    assert_eq!(host.power(victim), Some(Power::Running));
}

#[tokio::test(start_paused = true)]
async fn host_that_cannot_grow_machines_says_so() {
    let host = SimHost::new();
    host.set_hot_resize(false);
    let driver = SimDriver::new(Arc::clone(&host));
    assert!(!driver.capabilities().hot_resize);
    let spec = run(&driver).await;
    let mut more = spec.resources;
    more.vcpus += 1;
    let fault = driver.resize(spec.vm_id, 1, &more).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unsupported);
    assert_eq!(host.resources(spec.vm_id), Some(spec.resources));
}
