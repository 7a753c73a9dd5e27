//! Flavors, images, hosts and operations.

use vimana_model::FlavorId;
use vimana_model::host::{Accelerator, HostState};
use vimana_model::image::ImageFormat;
use vimana_model::name::{FlavorName, HostName, ImageName};
use vimana_model::operation::{OperationKind, OperationState, Situation, StepKind, StepState};
use vimana_model::unit::MiB;
use vimana_store::claim::{self, ClaimRecord, Taken};
use vimana_store::flavor::FlavorRecord;
use vimana_store::image::ImageRecord;
use vimana_store::operation::{OperationRecord, StepRecord};
use vimana_store::{StoreError, flavor, host, image, operation, write_tx};

use super::world::{NOW, World, resources};

pub async fn flavors_are_listed_by_memory_then_vcpus_then_name(world: World) {
    let sizes = [
        ("b", resources(1, 512, 1)),
        ("large", resources(1, 4096, 1)),
        ("two", resources(2, 512, 1)),
        ("B", resources(1, 512, 1)),
        ("a-1", resources(1, 512, 1)),
        ("small", resources(8, 64, 1)),
    ];
    for (name, size) in sizes {
        let record = FlavorRecord {
            id: FlavorId::from_parts(world.next(), [2; 10]),
            name: FlavorName::new(name).unwrap(),
            resources: size,
            created_at: NOW,
        };
        write_tx!(world.store, |tx| {
            flavor::insert(tx, &record).await?;
            Ok(())
        })
        .unwrap();
        let found = flavor::find_by_name(&world.store.read(), &record.name).await;
        assert_eq!(found.unwrap(), Some(record.clone()));
        let tx = world.store.begin().await.unwrap();
        let error = flavor::insert(&tx, &record).await.unwrap_err();
        assert!(matches!(
            error,
            StoreError::Duplicate {
                what: "flavor name"
            }
        ));
    }
    let flavors = flavor::list(&world.store.read()).await.unwrap();
    let names: Vec<&str> = flavors.iter().map(|flavor| flavor.name.as_str()).collect();
    assert_eq!(names, ["small", "B", "a-1", "b", "two", "large"]);
}

pub async fn images_survive_and_can_be_deleted(world: World) {
    let record = ImageRecord {
        id: world.image_id(),
        name: ImageName::new("debian-12").unwrap(),
        format: ImageFormat::Qcow2,
        size_bytes: 5_000_000_000,
        virtual_mib: MiB(20_480),
        sha256: "00ff".to_owned(),
        created_at: NOW,
    };
    let other = ImageRecord {
        id: world.image_id(),
        name: ImageName::new("alpine").unwrap(),
        format: ImageFormat::Raw,
        ..record.clone()
    };
    write_tx!(world.store, |tx| {
        image::insert(tx, &record).await?;
        image::insert(tx, &other).await?;
        Ok(())
    })
    .unwrap();
    let reader = world.store.read();
    let listed = image::list(&reader).await.unwrap();
    assert_eq!(listed, [other.clone(), record.clone()]);
    let found = image::find_by_name(&reader, &record.name).await.unwrap();
    assert_eq!(found, Some(record.clone()));

    let tx = world.store.begin().await.unwrap();
    let again = ImageRecord {
        id: world.image_id(),
        ..record.clone()
    };
    let error = image::insert(&tx, &again).await.unwrap_err();
    assert!(matches!(
        error,
        StoreError::Duplicate { what: "image name" }
    ));
    assert!(image::delete(&tx, record.id).await.unwrap());
    assert!(!image::delete(&tx, record.id).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(image::find(&reader, record.id).await.unwrap(), None);
    let found = image::find(&reader, other.id).await.unwrap();
    assert_eq!(found, Some(other));
}

pub async fn hosts_are_listed_by_name_with_all_columns(world: World) {
    let second = world
        .new_host("node-b", resources(8, 16_384, 100_000))
        .await;
    let first = world.new_host("node-a", resources(4, 8_192, 50_000)).await;
    let reader = world.store.read();
    let listed = host::list(&reader).await.unwrap();
    assert_eq!(listed, [first.clone(), second.clone()]);
    let found = host::find(&reader, first.id).await.unwrap();
    assert_eq!(found, Some(first.clone()));
    let stranger = world.host("node-c", resources(1, 1, 1));
    let ids = [second.id, stranger.id, first.id];
    let mut many = host::find_many(&reader, &ids).await.unwrap();
    many.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(many, [first.clone(), second]);

    let tx = world.store.begin().await.unwrap();
    let again = world.host("node-a", resources(1, 1, 1));
    let error = host::insert(&tx, &again).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { what: "host name" }));
    let renamed = host::HostRecord {
        name: HostName::new("node-b").unwrap(),
        ..first
    };
    let error = host::update_facts(&tx, &renamed).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { what: "host name" }));
}

pub async fn host_facts_leave_the_claims_alone(world: World) {
    let mut record = world.new_host("node-a", resources(4, 8_192, 50_000)).await;
    let vm = world.new_vm("web").await;
    let claim = ClaimRecord {
        vm_id: vm.id,
        host_id: record.id,
        resources: vm.resources,
    };
    let taken = write_tx!(world.store, |tx| Ok(claim::take(tx, &claim).await?));
    assert_eq!(taken.unwrap(), Taken::Ok);

    record.state = HostState::Unknown;
    record.connected = false;
    record.accelerator = Accelerator::Tcg;
    record.capacity = resources(2, 4_096, 40_000);
    record.connected_since = None;
    record.silent_since = Some(NOW);
    let stranger = world.host("nowhere", resources(1, 1, 1));
    let updated = write_tx!(world.store, |tx| {
        let strangers = host::update_facts(tx, &stranger).await?;
        Ok((host::update_facts(tx, &record).await?, strangers))
    });
    assert_eq!(updated.unwrap(), (true, false));
    record.used = vm.resources;
    record.vms = 1;
    let found = host::find(&world.store.read(), record.id).await.unwrap();
    assert_eq!(found, Some(record));
}

pub async fn restart_disconnects_those_that_were_connected(world: World) {
    let connected = world.new_host("node-a", resources(1, 1, 1)).await;
    let mut silent = world.host("node-b", resources(1, 1, 1));
    silent.connected = false;
    silent.connected_since = None;
    silent.silent_since = Some(NOW);
    let later = NOW.plus_ms(5000);
    let gone = write_tx!(world.store, |tx| {
        host::insert(tx, &silent).await?;
        Ok(host::disconnect_all(tx, later).await?)
    });
    assert_eq!(gone.unwrap(), [connected.id]);
    let hosts = host::list(&world.store.read()).await.unwrap();
    assert!(!hosts[0].connected);
    assert_eq!(hosts[0].connected_since, None);
    assert_eq!(hosts[0].silent_since, Some(later));
    assert_eq!(hosts[1], silent);
}

pub async fn operations_survive_with_their_steps(world: World) {
    let vm = world.new_vm("web").await;
    let new = |age: i64| OperationRecord {
        id: world.operation_id(),
        vm_id: vm.id,
        kind: OperationKind::Create,
        state: OperationState::Running,
        step: 0,
        steps: OperationKind::Create
            .steps(Situation {
                on_host: true,
                in_datastore: false,
                runs: true,
                force: false,
            })
            .iter()
            .map(|kind| StepRecord {
                kind: *kind,
                attempt: 1,
                retry_at: None,
                target: None,
                state: StepState::Waiting,
                started_at: None,
                ended_at: None,
            })
            .collect(),
        requested_by: "ada".to_owned(),
        error: None,
        claim_epoch: 3,
        undo: None,
        due_at: None,
        created_at: NOW.plus_ms(age),
        ended_at: None,
    };
    let (mut first, second, stranger) = (new(1), new(2), new(3));
    write_tx!(world.store, |tx| {
        operation::insert(tx, &second).await?;
        operation::insert(tx, &first).await?;
        Ok(())
    })
    .unwrap();
    let reader = world.store.read();
    let running = operation::running(&reader).await.unwrap();
    assert_eq!(running, [first.clone(), second.clone()]);
    let of_vm = operation::for_vm(&reader, vm.id).await.unwrap();
    assert_eq!(of_vm, [second.clone(), first.clone()]);

    first.state = OperationState::Failed;
    first.step = 2;
    first.steps[0].state = StepState::Done;
    first.steps[0].started_at = Some(NOW);
    first.steps[0].ended_at = Some(NOW.plus_ms(7));
    first.error = Some("the image is damaged".to_owned());
    first.ended_at = Some(NOW.plus_ms(9));
    let updated = write_tx!(world.store, |tx| {
        let strangers = operation::update(tx, &stranger).await?;
        Ok((operation::update(tx, &first).await?, strangers))
    });
    assert_eq!(updated.unwrap(), (true, false));
    let found = operation::find(&reader, first.id).await.unwrap();
    assert_eq!(found, Some(first.clone()));
    assert_eq!(
        operation::running(&reader).await.unwrap(),
        std::slice::from_ref(&second)
    );
    let ids = [first.id, stranger.id, second.id];
    let mut many = operation::find_many(&reader, &ids).await.unwrap();
    many.sort_by_key(|operation| operation.created_at);
    assert_eq!(many[0].steps[0].kind, StepKind::Place);
    assert_eq!(many, [first, second]);
}
