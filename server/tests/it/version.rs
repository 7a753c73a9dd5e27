//! Agents and schedulers of other versions than the server's.

use serde_json::{Value, json};
use vimana_model::event::EventKind;
use vimana_model::{VmId, VmState};

use crate::agent::{Agent, closed, is_alive};
use crate::fleet::{self, Socket, heard, say};
use crate::strange::Scene;
use crate::watch::Watch;
use crate::world::World;

#[tokio::test]
async fn the_highest_version_both_speak_is_chosen_and_without_one_the_agent_is_told() {
    let world = World::new().await;
    let watch = Watch::new(&world).await;
    let agent = Agent::joined(&world, 1).await;
    let knock = async |protocol: Value| {
        let mut hello = agent.hello();
        hello["protocol"] = protocol;
        hello["later"] = json!({ "anything": [1] });
        agent.knock_with(hello.to_string()).await
    };
    for (min, max) in [(3, 3), (1, 3), (3, 9), (0, u32::MAX)] {
        let (_, welcome) = knock(json!({ "min": min, "max": max, "spoken": "so" })).await;
        assert_eq!(welcome["frame"], "welcome", "{welcome}");
        assert_eq!(welcome["protocol"], 3);
    }
    for (min, max) in [(1, 2), (4, 5), (9, 1)] {
        let expected = format!("the agent speaks protocol {min} to {max}, this server 3 to 3");
        for _ in 0..3 {
            let (mut socket, refused) = knock(json!({ "min": min, "max": max })).await;
            let told = json!({ "frame": "refused", "reason": expected });
            assert_eq!(refused, told);
            assert_eq!(closed(&mut socket).await, expected);
        }
    }
    // Whoever runs the host learns it, too, and once for each version.
    let timeline = watch.client.host_timeline(agent.id).await.unwrap();
    let refused = |event: &EventKind| matches!(event, EventKind::HostRefused { .. });
    let alarms = timeline.iter().filter(|entry| refused(&entry.event));
    assert_eq!(alarms.count(), 3);
    for nonsense in [json!({ "min": -1, "max": 2 }), json!("2"), Value::Null] {
        let (_, refused) = knock(nonsense).await;
        assert_eq!(refused["frame"], "refused");
    }
}

#[tokio::test]
async fn a_hello_of_a_later_version_is_refused_by_its_version_and_not_by_its_looks() {
    let world = World::new().await;
    let agent = Agent::joined(&world, 1).await;
    let later = json!({ "frame": "hello", "protocol": { "min": 7, "max": 8 }, "who": "me" });
    let (_, refused) = agent.knock_with(later.to_string()).await;
    let told = "the agent speaks protocol 7 to 8, this server 3 to 3";
    assert_eq!(refused, json!({ "frame": "refused", "reason": told }));
    let mut scheduler = fleet::dial_scheduler(&world).await;
    let later = json!({ "frame": "hello", "protocol": 7, "policies": [] });
    say(&mut scheduler, later).await;
    let told = closed(&mut scheduler).await;
    assert_eq!(told, "this server speaks protocol 4, not 7");
}

/// Frames of an agent that this server does not understand.
fn strange_frames(vm: VmId) -> Vec<Value> {
    let power = json!({ "power": "hibernating", "to": "disk" });
    let command = json!({ "operation_id": "op_x", "step": -1, "undo": 0, "attempt": [] });
    vec![
        json!({ "frame": "teleported", "vm_id": vm }),
        json!({ "frame": "observed", "vm_id": vm, "run_epoch": 1, "power": power }),
        json!({ "frame": "observed", "vm_id": vm, "run_epoch": 1, "power": "off" }),
        json!({ "frame": "observed", "vm_id": vm, "run_epoch": -1, "power": { "power": "off" } }),
        json!({ "frame": "observed" }),
        json!({ "frame": "inventory", "inventory": [{}] }),
        json!({ "frame": "progress", "command": command, "progress": null }),
        json!({ "frame": "done", "command": command, "claim_epoch": 1, "outcome": {} }),
        json!({ "frame": "discarded", "vm_id": 7 }),
        json!({ "frame": 7 }),
        json!({ "mood": "fine" }),
        json!([{ "frame": "heartbeat" }]),
        Value::Null,
    ]
}

#[tokio::test]
async fn frames_that_are_not_understood_cost_themselves_alone() {
    let mut scene = Scene::new().await;
    let hello = scene.hello();
    let mut session = scene.session(hello).await;
    for frame in strange_frames(scene.vm.id) {
        say(&mut session, frame).await;
    }
    assert!(is_alive(&mut session).await);
    scene.assert_vm_untouched("strange frames").await;
    // What is understood afterwards counts.
    let off = json!({ "power": "off", "cause": "battery" });
    let observed = json!({
        "frame": "observed", "vm_id": scene.vm.id, "run_epoch": 1, "power": off, "at": "noon",
    });
    say(&mut session, observed).await;
    scene.watch.until_vm(scene.vm.id, VmState::PoweredOff).await;
}

#[tokio::test]
async fn a_machine_in_a_state_without_a_word_here_is_not_taken_for_gone() {
    let mut scene = Scene::new().await;
    let (mut hello, stranger) = scene.hello();
    let other = VmId::from_parts(1, [77; 10]);
    let power = json!({ "power": "hibernating", "to": ["disk"] });
    let machine = |id: VmId| json!({ "vm_id": id, "run_epoch": 1, "power": power, "since": 1 });
    let sync = hello["inventory"][1].clone();
    hello["inventory"] = json!([machine(scene.vm.id), machine(other), sync]);
    hello["capabilities"]["accelerator"] = json!("quantum");
    hello["capabilities"]["gpus"] = json!(2);
    hello["capacity"]["gpus"] = json!(2);
    let mut session = scene.session((hello, stranger)).await;
    assert!(is_alive(&mut session).await);
    scene.assert_vm_untouched("an unknown power state").await;
    let host = scene.host().await;
    assert_eq!(host.accelerator.name(), "other");
    assert_eq!(host.state.name(), "Enabled");
    // Nobody kills what is not understood.
    let orphans = scene.watch.client.host_orphans(host.id).await.unwrap();
    let kept = orphans.iter().find(|orphan| orphan.vm_id == other).unwrap();
    assert_eq!((kept.power.as_str(), kept.discarding), ("unknown", false));
}

/// Answers the next command in these words.
async fn answer(session: &mut Socket, outcome: Value) -> String {
    loop {
        let frame = heard(session).await.unwrap();
        if frame["frame"] != "command" {
            continue;
        }
        let done = json!({
            "frame": "done", "command": frame["command"],
            "claim_epoch": frame["claim_epoch"], "outcome": outcome,
        });
        say(session, done).await;
        return frame["work"]["work"].as_str().unwrap().to_owned();
    }
}

#[tokio::test]
async fn an_outcome_that_is_not_understood_ends_its_step_and_what_it_did_is_taken_back() {
    let mut scene = Scene::new().await;
    let hello = scene.hello();
    let mut session = scene.session(hello).await;
    scene.watch.client.suspend_vm(scene.vm.id).await.unwrap();
    let strange = json!({ "outcome": "postponed", "until": "noon" });
    assert_eq!(answer(&mut session, strange).await, "save");
    let fine = json!({ "outcome": "ok" });
    assert_eq!(answer(&mut session, fine.clone()).await, "load");
    let failed = |event: &EventKind| matches!(event, EventKind::OperationFailed { .. });
    let told = scene.watch.until(failed).await.event.event.sentence();
    assert!(told.contains("newer than this server"), "{told}");
    scene.assert_vm_untouched("taken back").await;
    // A fault without a word here may pass.
    scene.watch.client.suspend_vm(scene.vm.id).await.unwrap();
    let fault = json!({ "kind": "too_hot", "message": "it is too hot" });
    let hot = json!({ "outcome": "fault", "fault": fault });
    assert_eq!(answer(&mut session, hot).await, "save");
    assert_eq!(answer(&mut session, fine).await, "save");
    scene.watch.until_vm(scene.vm.id, VmState::Suspended).await;
}

#[tokio::test]
async fn words_of_an_agent_for_people_are_tamed() {
    let mut scene = Scene::new().await;
    let (mut hello, stranger) = scene.hello();
    hello["agent_version"] = json!("9\u{0}.\u{1b}[2J");
    hello["capabilities"]["hypervisor"] = json!("q".repeat(100_000));
    let mut session = scene.session((hello, stranger)).await;
    let host = scene.host().await;
    assert_eq!(host.agent_version, "9 . [2J");
    assert_eq!(host.hypervisor.chars().count(), 1001);
    let reason = json!("a\u{0}\nb");
    let power = json!({ "power": "crashed", "reason": reason });
    let crashed = json!({
        "frame": "observed", "vm_id": scene.vm.id, "run_epoch": 1, "power": power,
    });
    say(&mut session, crashed).await;
    let vm = scene.watch.until_vm(scene.vm.id, VmState::Failed).await;
    assert_eq!(vm.id, scene.vm.id);
    let timeline = scene.watch.client.vm_timeline(vm.id).await.unwrap();
    let told = timeline.iter().map(|entry| entry.event.sentence());
    let told: Vec<String> = told.filter(|told| told.contains("Failed")).collect();
    assert!(told.iter().any(|told| told.ends_with("a  b")), "{told:?}");
}
