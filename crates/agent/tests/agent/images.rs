//! What gets into the image cache, and what does not.

use std::os::unix::fs::PermissionsExt as _;

use std::time::Duration;

use axum::http::StatusCode;
use vimana_driver::{Fault, FaultKind, ImageRef};
use vimana_driver_sim::Call;
use vimana_model::unit::MiB;
use vimana_protocol::agent::{Outcome, Work};

use crate::orders::{OK, command, prepare, vm};
use crate::world::{PATIENCE, Session, World};

/// The image's fault, and that it left no file.
async fn refusal(world: &mut World, image: &ImageRef) -> (FaultKind, String) {
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

/// Two images of this size are all that a cache of one MiB holds.
const HALF: usize = 500 << 10;

/// A host whose image cache holds two of the server's images.
async fn small_cache() -> (World, [ImageRef; 4]) {
    let mut world = World::without_agent().await;
    world.image_cache = Some(MiB(1));
    world.start_agent();
    let images = [1, 2, 3, 4].map(|n| world.add_image(&[n; HALF]));
    (world, images)
}

/// A machine is made from the image, and nothing is left of it.
async fn use_once(session: &mut Session, n: u8, image: &ImageRef) {
    assert_eq!(session.carry_out(&prepare(vm(n), 0, image)).await, OK);
    assert_eq!(session.carry_out(&command(vm(n), 1, Work::Clean)).await, OK);
}

fn names(images: &[&ImageRef]) -> Vec<String> {
    let mut names: Vec<_> = images.iter().map(|i| format!("{}.raw", i.id)).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_image_not_used_for_the_longest_goes_for_one_that_comes() {
    let (mut world, [a, b, c, d]) = small_cache().await;
    let mut session = world.session().await;
    use_once(&mut session, 1, &a).await;
    use_once(&mut session, 2, &b).await;
    assert_eq!(world.cached_names(), names(&[&a, &b]));
    use_once(&mut session, 3, &a).await;
    use_once(&mut session, 4, &c).await;
    assert_eq!(world.cached_names(), names(&[&a, &c]));
    // As one sees after a restart, too.
    drop(session);
    world.stop_agent().await;
    world.start_agent();
    let mut session = world.session().await;
    use_once(&mut session, 5, &d).await;
    assert_eq!(world.cached_names(), names(&[&c, &d]));
    // It comes again when it is wanted again.
    use_once(&mut session, 6, &b).await;
    assert_eq!(world.cached_names(), names(&[&b, &d]));
    assert_eq!(world.downloads(), 5);
}

#[tokio::test]
async fn an_image_that_a_machine_is_made_from_stays_whatever_the_budget_says() {
    let (mut world, [a, b, c, d]) = small_cache().await;
    let mut session = world.session().await;
    assert_eq!(session.carry_out(&prepare(vm(1), 0, &a)).await, OK);
    use_once(&mut session, 2, &b).await;
    use_once(&mut session, 3, &c).await;
    assert_eq!(world.cached_names(), names(&[&a, &c]));
    // Machines come before the budget.
    assert_eq!(session.carry_out(&prepare(vm(4), 0, &c)).await, OK);
    use_once(&mut session, 5, &d).await;
    assert_eq!(world.cached_names(), names(&[&a, &c, &d]));
    // Without its machine it goes like any other.
    assert_eq!(session.carry_out(&command(vm(1), 1, Work::Clean)).await, OK);
    use_once(&mut session, 6, &d).await;
    assert_eq!(world.cached_names(), names(&[&c, &d]));
}

#[tokio::test]
async fn an_image_that_a_machine_is_being_made_from_stays() {
    let (mut world, [a, b, c, _]) = small_cache().await;
    let mut session = world.session().await;
    use_once(&mut session, 1, &a).await;
    use_once(&mut session, 2, &b).await;
    // The next machine takes its time, and meanwhile its image is the one that
    // was not used for the longest.
    world.host.delay(Call::Prepare, Duration::from_millis(500));
    session.order(&prepare(vm(3), 0, &a)).await;
    session.order(&prepare(vm(4), 0, &b)).await;
    session.order(&prepare(vm(5), 0, &c)).await;
    for _ in 0..3 {
        assert_eq!(session.outcome().await.1, OK);
    }
    assert_eq!(world.cached_names(), names(&[&a, &b, &c]));
}

#[tokio::test]
async fn an_image_that_the_server_has_no_longer_goes_once_no_machine_is_made_from_it() {
    let mut world = World::without_agent().await;
    world.images_every = Duration::from_millis(20);
    world.start_agent();
    let [gone, used, kept, unsure] = [1, 2, 3, 4].map(|n| world.add_image(&[n; 1000]));
    let mut session = world.session().await;
    for (n, image) in (1..).zip([&gone, &kept, &unsure]) {
        use_once(&mut session, n, image).await;
    }
    assert_eq!(session.carry_out(&prepare(vm(9), 0, &used)).await, OK);
    let left = names(&[&gone, &used, &kept, &unsure]);
    assert_eq!(world.cached_names(), left);
    world.answer_image(&unsure, StatusCode::SERVICE_UNAVAILABLE, b"");
    world.remove_image(&used);
    world.remove_image(&gone);
    let until = async |world: &World, left: Vec<String>| {
        let went = async {
            while world.cached_names() != left {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, went).await.unwrap();
    };
    until(&world, names(&[&used, &kept, &unsure])).await;
    assert_eq!(session.carry_out(&command(vm(9), 1, Work::Clean)).await, OK);
    until(&world, names(&[&kept, &unsure])).await;
}

#[tokio::test]
async fn nothing_goes_where_it_is_not_certain_what_is_in_use() {
    let (mut world, [a, b, c, d]) = small_cache().await;
    let mut session = world.session().await;
    use_once(&mut session, 1, &a).await;
    use_once(&mut session, 2, &b).await;
    let fault = Fault::new(FaultKind::Host, "a record is damaged");
    world.host.fail_next(Call::ImagesInUse, fault);
    use_once(&mut session, 3, &c).await;
    assert_eq!(world.cached_names(), names(&[&a, &b, &c]));
    use_once(&mut session, 4, &d).await;
    assert_eq!(world.cached_names(), names(&[&c, &d]));
}

#[tokio::test]
async fn files_that_are_not_images_are_left_alone() {
    let (mut world, [a, b, c, _]) = small_cache().await;
    let images = world.dir.path().join("images");
    std::fs::write(images.join("notes.raw"), vec![0; 4 << 20]).unwrap();
    let mut session = world.session().await;
    for (n, image) in [(1, &a), (2, &b), (3, &c)] {
        use_once(&mut session, n, image).await;
    }
    let mut left = names(&[&b, &c]);
    left.push("notes.raw".to_owned());
    left.sort();
    assert_eq!(world.cached_names(), left);
}
