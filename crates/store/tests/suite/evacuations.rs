//! What is wanted of hosts, and the migrations by which they are emptied.

use vimana_model::host::{DesiredState, HostState};
use vimana_model::operation::{Object, OperationKind, OperationState};
use vimana_store::host::{EvacuationRecord, HostRecord};
use vimana_store::operation::OperationRecord;
use vimana_store::{host, operation, write_tx};

use super::world::{NOW, World, resources};

/// What a host says of itself does not touch it.
pub async fn what_is_wanted_of_a_host_is_written_by_itself(world: World) {
    let plain = world.new_host("node-a", resources(4, 8_192, 50_000)).await;
    let other = world.new_host("node-b", resources(4, 8_192, 50_000)).await;
    assert_eq!(plain.desired, DesiredState::Enabled);
    let evacuation = EvacuationRecord {
        begun_at: NOW,
        by: "ann".to_owned(),
        limit: 2,
        stuck: Some(1),
    };
    let drained = HostRecord {
        desired: DesiredState::Draining,
        evacuation: Some(evacuation),
        state: HostState::Draining,
        // Not what it is for.
        connected: false,
        ..plain.clone()
    };
    let stranger = HostRecord {
        id: world.host("nowhere", resources(1, 1, 1)).id,
        ..drained.clone()
    };
    let written = write_tx!(world.store, |tx| {
        let strangers = host::set_desired(tx, &stranger).await?;
        Ok((host::set_desired(tx, &drained).await?, strangers))
    });
    assert_eq!(written.unwrap(), (true, false));
    let expected = HostRecord {
        connected: true,
        ..drained
    };
    let read = world.store.read();
    let found = host::draining(&read).await.unwrap();
    assert_eq!(found, std::slice::from_ref(&expected));
    let told = HostRecord {
        state: HostState::Unknown,
        ..plain
    };
    let updated = write_tx!(world.store, |tx| Ok(host::update_facts(tx, &told).await?));
    assert!(updated.unwrap());
    let found = host::find(&read, told.id).await.unwrap().unwrap();
    assert_eq!(found.state, HostState::Unknown);
    assert_eq!(found.desired, DesiredState::Draining);
    assert_eq!(found.evacuation, expected.evacuation);
    let others = host::find(&read, other.id).await.unwrap();
    assert_eq!(others, Some(other));
}

pub async fn migrations_since_a_time_are_found_and_nothing_else(world: World) {
    let vm = world.new_vm("web").await;
    let new = |kind: OperationKind, age: i64| OperationRecord {
        id: world.operation_id(),
        object: Object::Vm(vm.id),
        kind,
        state: OperationState::Failed,
        step: 0,
        steps: Vec::new(),
        requested_by: "ann".to_owned(),
        error: None,
        claim_epoch: 1,
        undo: None,
        due_at: None,
        created_at: NOW.plus_ms(age),
        ended_at: Some(NOW),
    };
    let kind = OperationKind::Migrate;
    let (early, first, last) = (new(kind, -1), new(kind, 0), new(kind, 5));
    let other = new(OperationKind::Reset, 3);
    let inserted = write_tx!(world.store, |tx| {
        for record in [&last, &other, &first, &early] {
            operation::insert(tx, record).await?;
        }
        Ok(())
    });
    inserted.unwrap();
    let found = operation::migrations_since(&world.store.read(), NOW).await;
    assert_eq!(found.unwrap(), [first, last]);
}
