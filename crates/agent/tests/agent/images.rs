//! What gets into the image cache, and what does not.

use std::os::unix::fs::PermissionsExt as _;

use axum::http::StatusCode;
use vimana_driver::FaultKind;
use vimana_protocol::agent::Outcome;

use crate::orders::{OK, prepare, vm};
use crate::world::World;

/// The image's fault, and that it left no file.
async fn refusal(world: &mut World, image: &vimana_driver::ImageRef) -> (FaultKind, String) {
    let mut session = world.session().await;
    let outcome = session.carry_out(&prepare(vm(1), 0, image)).await;
    assert_eq!(world.cached(), Vec::<std::path::PathBuf>::new());
    match outcome {
        Outcome::Fault { fault } => (fault.kind, fault.message),
        Outcome::Ok { .. } | Outcome::Unknown => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn an_image_is_fetched_once_checked_and_read_only() {
    let mut world = World::new().await;
    let content = vec![7; 300_000];
    let image = world.add_image(&content);
    world.close_gate();
    let mut session = world.session().await;
    for n in 1..=3 {
        session.order(&prepare(vm(n), 0, &image)).await;
    }
    world.downloads_reach(1).await;
    world.open_gate();
    for _ in 1..=3 {
        assert_eq!(session.outcome().await.1, OK);
    }
    assert_eq!(world.downloads(), 1);
    let cached = world.cached();
    assert_eq!(cached.len(), 1);
    assert_eq!(
        cached[0].file_name().unwrap(),
        format!("{}.raw", image.id).as_str()
    );
    assert_eq!(std::fs::read(&cached[0]).unwrap(), content);
    let mode = std::fs::metadata(&cached[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444);
}

#[tokio::test]
async fn a_bad_checksum_leaves_no_file() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    world.answer_image(&image, StatusCode::OK, b"c0ntent");
    let (kind, message) = refusal(&mut world, &image).await;
    assert_eq!(kind, FaultKind::BadImage);
    assert_eq!(message, "the image's checksum is not the one promised");
}

#[tokio::test]
async fn a_wrong_size_leaves_no_file() {
    for (body, says) in [("content!", "more"), ("conten", "fewer")] {
        let mut world = World::new().await;
        let image = world.add_image(b"content");
        world.answer_image(&image, StatusCode::OK, body.as_bytes());
        let (kind, message) = refusal(&mut world, &image).await;
        assert_eq!(kind, FaultKind::BadImage);
        assert_eq!(
            message,
            format!("the image has {says} bytes than the 7 promised")
        );
    }
}

#[tokio::test]
async fn an_image_the_server_lacks_is_not_asked_for_again() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    world.answer_image(&image, StatusCode::NOT_FOUND, b"");
    let (kind, message) = refusal(&mut world, &image).await;
    assert_eq!(kind, FaultKind::BadImage);
    assert_eq!(message, "the server does not have the image");
    assert_eq!(world.downloads(), 1);
}

#[tokio::test]
async fn a_server_with_a_bad_moment_is_asked_again() {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    world.answer_image(&image, StatusCode::SERVICE_UNAVAILABLE, b"");
    let mut session = world.session().await;
    session.order(&prepare(vm(1), 0, &image)).await;
    world.downloads_reach(2).await;
    world.answer_image(&image, StatusCode::OK, b"content");
    assert_eq!(session.outcome().await.1, OK);
}

#[tokio::test]
async fn what_an_earlier_agent_left_half_done_goes_at_the_start() {
    let mut world = World::without_agent().await;
    let images = world.dir.path().join("images");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(images.join(".partial-x"), b"half").unwrap();
    std::fs::write(images.join("whole.raw"), b"whole").unwrap();
    world.start_agent();
    let _session = world.session().await;
    assert_eq!(
        world.cached(),
        [images.canonicalize().unwrap().join("whole.raw")]
    );
}
