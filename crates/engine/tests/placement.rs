//! What schedulers propose, and what becomes of it.

use futures::FutureExt as _;
use vimana_model::VmState;
use vimana_model::pending::Explanation;
use vimana_protocol::scheduler::{FromScheduler, ToScheduler};
use vimana_testkit::{TestHost, TestWorld};

#[tokio::test]
async fn a_proposal_that_waits_for_the_database_does_not_hold_up_the_next() {
    let world = TestWorld::new().await;
    let mut host = TestHost::new(1);
    host.connect(&world.engine).await;
    let vms = [world.create("web-1").await, world.create("web-2").await];
    let connected = world.engine.connect_scheduler("test".to_owned()).await;
    let (mut told, scheduler) = connected.unwrap().split();

    let somebody_writes = world.engine.store().begin().await.unwrap();
    for vm in &vms {
        let proposal = FromScheduler::Proposal {
            vm_id: vm.id,
            generation: vm.generation,
            host_id: host.id,
            explanation: Explanation::default(),
        };
        let taken = scheduler.receive(proposal).now_or_never();
        assert!(
            taken.is_some(),
            "the proposal for {} is waited for",
            vm.name
        );
    }
    // Nor does it get lost when the scheduler hangs up.
    drop(scheduler);
    somebody_writes.rollback().await.unwrap();
    let mut verdicts = 0;
    while verdicts < vms.len() {
        match told.recv().await {
            Some(ToScheduler::Verdict { refused, .. }) => {
                assert_eq!(refused, None);
                verdicts += 1;
            }
            Some(_) => {}
            None => panic!("the session ended"),
        }
    }
    for vm in &vms {
        world.until(vm.id, VmState::Running).await;
    }
}
