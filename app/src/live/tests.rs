use vimana_model::event::{Actor, EventKind};
use vimana_model::image::ImageState;
use vimana_model::operation::{
    Object, OperationKind, OperationState, OperationView, Progress, StepKind, StepState, StepView,
};
use vimana_model::{OperationId, Timestamp, VmState};

use super::*;
use crate::api::RequestShow;

fn event(seq: u64) -> EventView {
    EventView {
        seq,
        at: Timestamp::from_ms(0),
        actor: Actor::System,
        vm_id: None,
        host_id: None,
        request_id: None,
        image_id: None,
        volume_id: None,
        event: EventKind::ConsoleOpened,
    }
}

fn operation(n: u64, state: OperationState) -> OperationView {
    OperationView {
        id: OperationId::from_parts(n, [0; 10]),
        object: Object::Vm(VmId::from_parts(1, [0; 10])),
        piece: None,
        kind: OperationKind::Create,
        state,
        steps: Vec::new(),
        requested_by: "ann".to_owned(),
        cancelled_by: None,
        error: None,
        progress: None,
        migration: None,
        waits_for: None,
        created_at: Timestamp::from_ms(0),
        ended_at: None,
    }
}

#[test]
fn an_event_that_comes_twice_or_late_is_in_the_timeline_once_at_its_place() {
    let mut known = vec![event(3), event(7)];
    merge_events(&mut known, vec![event(7), event(5), event(9)]);
    let order: Vec<u64> = known.iter().map(|event| event.seq).collect();
    assert_eq!(order, [3, 5, 7, 9]);
}

#[test]
fn an_operation_is_replaced_in_place_and_a_newer_one_stands_first() {
    let mut known = vec![operation(2, OperationState::Running)];
    merge_operation(&mut known, operation(2, OperationState::Succeeded));
    merge_operation(&mut known, operation(3, OperationState::Running));
    merge_operation(&mut known, operation(1, OperationState::Failed));
    let states: Vec<OperationState> = known.iter().map(|operation| operation.state).collect();
    assert_eq!(
        states,
        [
            OperationState::Running,
            OperationState::Succeeded,
            OperationState::Failed
        ]
    );
}

#[test]
fn a_vm_joins_a_list_once_and_newest_first() {
    let id = |n| VmId::from_parts(n, [0; 10]);
    let ids = ArcRwSignal::new(vec![id(9), id(4)]);
    for n in [6, 9, 6, 1] {
        insert(&ids, id(n));
    }
    assert_eq!(ids.get_untracked(), [id(9), id(6), id(4), id(1)]);
}

fn on_a_page<T>(body: impl FnOnce(Live) -> T) -> T {
    Owner::new().with(|| {
        Live::provide();
        body(expect_context::<Live>())
    })
}

fn spoken_of(seq: u64, vm: VmView) -> StreamItem {
    StreamItem {
        event: EventView {
            vm_id: Some(vm.id),
            ..event(seq)
        },
        vm: Some(vm),
        host: None,
        request: None,
        image: None,
        volume: None,
    }
}

fn vm(generation: u64, owner: &str) -> VmView {
    let json = serde_json::json!({
        "id": VmId::from_parts(1, [0; 10]),
        "name": "web-1",
        "tenant_id": format!("tenant_{:032x}", 1),
        "owner": owner,
        "state": "pending",
        "state_since": "2026-11-22T18:00:00Z",
        "flavor": "tiny",
        "image": "demo",
        "image_id": format!("image_{:032x}", 1),
        "resources": { "vcpus": 1, "memory_mib": 128, "disk_mib": 1024 },
        "run_epoch": 0,
        "generation": generation,
        "has_user_data": false,
        "created_at": "2026-11-22T18:00:00Z",
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn what_happened_while_the_page_was_on_its_way_is_in_its_timeline() {
    on_a_page(|live| {
        let read = vec![EventView {
            vm_id: Some(vm(1, "").id),
            ..event(3)
        }];
        live.apply(spoken_of(4, vm(2, "")));
        let view = live.adopt(Mark::default(), vm(1, ""));
        let history = live.open_history(About::Vm(vm(1, "").id), read, Vec::new(), None);
        let order: Vec<u64> = history
            .events
            .with_untracked(|events| events.iter().map(|event| event.seq).collect());
        assert_eq!(order, [3, 4]);
        assert_eq!(
            view.get_untracked().generation,
            2,
            "the answer was older than the event"
        );
    });
}

#[test]
fn an_answer_asked_for_before_an_event_does_not_undo_it() {
    on_a_page(|live| {
        let asked = live.lock().now;
        live.apply(spoken_of(4, vm(1, "from the event")));
        let view = live.adopt(asked, vm(1, "from the answer"));
        assert_eq!(view.get_untracked().owner, "from the event");
        let asked = live.lock().now;
        live.adopt(asked, vm(1, "from a later answer"));
        assert_eq!(view.get_untracked().owner, "from a later answer");
    });
}

fn saving(attempts: u32, done_bytes: u64) -> OperationView {
    OperationView {
        kind: OperationKind::Suspend,
        steps: vec![StepView {
            kind: StepKind::Save,
            state: StepState::Running,
            attempts,
            retry_at: None,
            started_at: None,
            ended_at: None,
        }],
        progress: Some(Progress {
            done_bytes,
            total_bytes: 100,
            copy: None,
        }),
        ..operation(1, OperationState::Running)
    }
}

#[test]
fn progress_counts_for_the_step_it_was_made_in() {
    on_a_page(|live| {
        let vm = VmView {
            operation: Some(saving(2, 10)),
            ..vm(1, "")
        };
        let id = vm.id;
        let view = live.adopt(Mark::default(), vm);
        let history = live.open_history(
            About::Vm(id),
            Vec::new(),
            Vec::new(),
            view.get_untracked().operation,
        );
        let done = || {
            let of = |operation: &OperationView| operation.progress.unwrap().done_bytes;
            let beside = history.operations.with_untracked(|known| of(&known[0]));
            let own = view.with_untracked(|vm| of(vm.operation.as_ref().unwrap()));
            (own, beside)
        };
        let hear = |operation| {
            live.apply_progress(&ProgressItem { operation });
        };
        hear(saving(2, 40));
        assert_eq!(done(), (40, 40));
        hear(saving(1, 90));
        assert_eq!(done(), (40, 40), "an earlier try is over");
    });
}

fn request(state: &str, generation: u64) -> RequestView {
    let json = serde_json::json!({
        "id": RequestId::from_parts(1, [0; 10]),
        "tenant_id": format!("tenant_{:032x}", 1),
        "requester": "ann",
        "state": state,
        "state_since": "2026-11-22T18:00:00Z",
        "terms": { "name": "web-1", "image": "demo", "flavor": "tiny" },
        "remarks": [],
        "generation": generation,
        "created_at": "2026-11-22T18:00:00Z",
    });
    serde_json::from_value(json).unwrap()
}

fn caller(name: &str, role: &str) -> Caller {
    let json = serde_json::json!({
        "user_id": format!("user_{:032x}", 1),
        "user_name": name,
        "staff": null,
        "tenant_id": format!("tenant_{:032x}", 1),
        "tenant": "shop",
        "tenant_kind": "manual",
        "role": role,
    });
    Caller::new(serde_json::from_value(json).unwrap())
}

fn about(seq: u64, request: RequestView) -> StreamItem {
    StreamItem {
        event: EventView {
            request_id: Some(request.id),
            ..event(seq)
        },
        vm: None,
        host: None,
        request: Some(request),
        image: None,
        volume: None,
    }
}

#[test]
fn what_waits_for_whom_follows_the_world() {
    on_a_page(|live| {
        live.open_waiting(caller("max", "manager"), Vec::new());
        live.apply(about(1, request("request", 1)));
        assert_eq!(live.waiting(), 1);
        live.apply(about(2, request("returned", 2)));
        assert_eq!(live.waiting(), 0, "now it waits for the requester");
    });
    on_a_page(|live| {
        live.open_waiting(caller("ann", "operator"), Vec::new());
        live.apply(about(1, request("request", 1)));
        assert_eq!(live.waiting(), 0);
        live.apply(about(2, request("returned", 2)));
        assert_eq!(live.waiting(), 1);
    });
}

#[test]
fn a_request_that_moved_on_stays_in_sight() {
    on_a_page(|live| {
        let show = RequestShow::from_query(Some("request"));
        let ids = live.open_requests(show, (Mark::default(), Vec::new()));
        live.apply(about(1, request("request", 1)));
        live.apply(about(2, request("rejected", 2)));
        assert_eq!(ids.get_untracked().len(), 1);
    });
}

#[test]
fn the_machine_of_a_request_is_as_its_own_events_say() {
    on_a_page(|live| {
        let id = request("operation", 1).id;
        let view = live.adopt_request(Mark::default(), request("operation", 1));
        let of_request = VmView {
            request_id: Some(id),
            ..vm(1, "")
        };
        live.apply(spoken_of(1, of_request));
        let state = view.with_untracked(|request| request.vm.as_ref().map(|vm| vm.state));
        assert_eq!(state, Some(VmState::Pending));
    });
}

fn image(state: &str, used_by: Option<u32>) -> ImageView {
    let json = serde_json::json!({
        "id": ImageId::from_parts(1, [0; 10]),
        "name": "debian-12",
        "tenant_id": null,
        "owner": "ann",
        "state": state,
        "state_since": "2026-11-22T18:00:00Z",
        "origin": { "kind": "url", "url": "https://example.org/x.qcow2" },
        "used_by": used_by,
        "created_at": "2026-11-22T18:00:00Z",
    });
    serde_json::from_value(json).unwrap()
}

fn of_image(seq: u64, image: ImageView) -> StreamItem {
    StreamItem {
        event: EventView {
            image_id: Some(image.id),
            ..event(seq)
        },
        vm: None,
        host: None,
        request: None,
        image: Some(image),
        volume: None,
    }
}

#[test]
fn an_event_of_an_image_does_not_forget_how_many_vms_are_made_from_it() {
    on_a_page(|live| {
        let view = live.adopt_image(Mark::default(), image("ready", Some(3)));
        live.apply(of_image(1, image("trashed", None)));
        let now = view.get_untracked();
        assert_eq!((now.state, now.used_by), (ImageState::Trashed, Some(3)));
        let asked = live.lock().now;
        live.adopt_image(asked, image("trashed", Some(2)));
        assert_eq!(view.get_untracked().used_by, Some(2));
    });
}

#[test]
fn an_image_that_comes_by_an_event_is_on_the_list_by_its_name() {
    on_a_page(|live| {
        let named = |n: u64, name: &str| ImageView {
            id: ImageId::from_parts(n, [0; 10]),
            name: name.parse().unwrap(),
            ..image("ready", Some(0))
        };
        live.open_images((Mark::default(), vec![named(1, "b"), named(2, "d")]));
        live.apply(of_image(1, named(3, "c")));
        live.apply(of_image(2, named(3, "c")));
        let order: Vec<ImageId> = [1, 3, 2].map(|n| ImageId::from_parts(n, [0; 10])).into();
        assert_eq!(live.image_ids.get_untracked(), order);
    });
}

#[test]
fn the_progress_of_an_import_reaches_the_row_and_the_page() {
    on_a_page(|live| {
        let id = image("importing", None).id;
        let import = |done| OperationView {
            object: Object::Image(id),
            ..saving(1, done)
        };
        let importing = ImageView {
            operation: Some(import(10)),
            ..image("importing", None)
        };
        let view = live.adopt_image(Mark::default(), importing);
        let newest = view.get_untracked().operation;
        let history = live.open_history(About::Image(id), Vec::new(), Vec::new(), newest);
        live.apply_progress(&ProgressItem {
            operation: import(60),
        });
        let done = |operation: &OperationView| operation.progress.unwrap().done_bytes;
        let row = view.with_untracked(|image| done(image.operation.as_ref().unwrap()));
        let page = history.operations.with_untracked(|known| done(&known[0]));
        assert_eq!((row, page), (60, 60));
    });
}

#[test]
fn what_changes_how_many_vms_are_made_from_an_image_is_known() {
    let made = EventKind::Requested {
        operation: OperationKind::Create,
    };
    let over = EventKind::State {
        from: VmState::Epilog,
        to: VmState::Done,
    };
    assert!(image::counts(&made) && image::counts(&over));
    assert!(!image::counts(&EventKind::ConsoleOpened));
}
