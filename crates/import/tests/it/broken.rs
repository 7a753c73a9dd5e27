use tokio::sync::watch;
use vimana_import::{ImportError, Progress, import};

use crate::{Scene, noise, packed, sha256};

#[tokio::test]
async fn a_line_that_breaks_ten_times_goes_on_where_it_was() {
    for pack in [false, true] {
        let raw = noise(11 << 20);
        let sent = if pack {
            packed("zstd", &raw)
        } else {
            raw.clone()
        };
        let scene = Scene::new(sent.clone());
        scene.web.plan(|plan| plan.cut_after = Some((1 << 20) + 1));
        let (told, progress) = watch::channel(Progress::default());
        let staging = scene.staging();
        let staged = import(&scene.job, &staging, |now| {
            told.send_replace(now);
        });
        let staged = staged.await.unwrap();
        assert_eq!(staged.sha256, sha256(&raw));
        let now = *progress.borrow();
        let times = sent.len().div_ceil((1 << 20) + 1) - 1;
        assert!(times >= 10);
        assert_eq!(now.interruptions as usize, times);
        assert_eq!(
            (now.received_bytes, now.total_bytes),
            (sent.len() as u64, Some(sent.len() as u64))
        );
        let served = scene.web.plan(|plan| plan.sent);
        assert_eq!(served, sent.len(), "nothing was fetched twice");
    }
}

#[tokio::test]
async fn who_starts_again_goes_on_with_what_is_on_disk() {
    let raw = noise(40 << 20);
    let scene = Scene::new(raw.clone());
    scene.web.plan(|plan| plan.stall_after = Some(39 << 20));
    let staging = scene.staging();
    {
        let (told, mut progress) = watch::channel(Progress::default());
        let import = import(&scene.job, &staging, |now| {
            told.send_replace(now);
        });
        let enough = async {
            progress
                .wait_for(|now| now.durable_bytes >= 16 << 20)
                .await
                .unwrap();
        };
        tokio::select! {
            ended = import => panic!("{ended:?}"),
            () = enough => {}
        }
    }
    scene.web.plan(|plan| plan.stall_after = None);
    let staged = scene.import().await.unwrap();
    assert_eq!(staged.sha256, sha256(&raw));
    let asked = scene.web.plan(|plan| plan.asked.clone());
    assert_eq!(asked.len(), 2);
    assert!(asked[1] >= 16 << 20, "{asked:?}");
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_fetched_anew() {
    let scene = Scene::new(noise(3 << 20));
    scene.web.plan(|plan| plan.cut_after = Some(1 << 20));
    let (told, mut progress) = watch::channel(Progress::default());
    let other = noise(2 << 20);
    let sum = sha256(&other);
    let staging = scene.staging();
    let import = import(&scene.job, &staging, |now| {
        told.send_replace(now);
    });
    let change = async {
        progress
            .wait_for(|now| now.interruptions == 1)
            .await
            .unwrap();
        scene.web.plan(|plan| {
            plan.content = other;
            plan.tag += 1;
            plan.cut_after = None;
        });
    };
    let (staged, ()) = tokio::join!(import, change);
    assert_eq!(staged.unwrap().sha256, sum);
}

#[tokio::test]
async fn a_server_that_never_brings_anything_is_given_up() {
    let scene = Scene::new(noise(1 << 20));
    scene.web.plan(|plan| plan.cut_after = Some(0));
    let error = scene.import().await.unwrap_err();
    assert!(matches!(error, ImportError::Fruitless { .. }), "{error}");
}
