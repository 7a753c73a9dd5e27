use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use futures::StreamExt;
use vimana_server::{Config, start};

use crate::world::{World, client, config};

async fn refusal(config: Config) -> String {
    match start(config).await {
        Ok(_) => panic!("the server started"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let world = World::new().await;
    let told = refusal(config(world.dir.path())).await;
    assert!(
        told.contains("another server runs on the data directory"),
        "{told}"
    );
    // The first goes on.
    assert_eq!(world.get("/readyz").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn plain_http_stays_on_this_machine_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let mut exposed = config(dir.path());
    exposed.listen = "0.0.0.0:0".parse().unwrap();
    let told = refusal(exposed.clone()).await;
    assert!(told.contains("--allow-plain-http"), "{told}");
    assert!(!dir.path().join("data").exists());
    exposed.allow_plain_http = true;
    start(exposed).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = config(dir.path());
    wrong.import_image = vec!["x=/nonexistent".parse().unwrap()];
    let told = refusal(wrong).await;
    assert!(
        told.contains("cannot import image x from /nonexistent"),
        "{told}"
    );
    let mut wrong = config(dir.path());
    wrong.site_dir = Some("/nonexistent".into());
    let told = refusal(wrong).await;
    assert!(told.contains("/nonexistent/manifest.json"), "{told}");
    let mut wrong = config(dir.path());
    wrong.tls.tls_cert = Some("/a.pem".into());
    wrong.tls.tls_key = Some("/b.pem".into());
    let told = refusal(wrong).await;
    assert!(told.contains("cannot use the certificate /a.pem"), "{told}");
}

#[tokio::test]
async fn the_data_is_for_its_owner_alone() {
    let world = World::new().await;
    let mode = |path: &str| {
        let path = world.dir.path().join("data").join(path);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("."), 0o700);
    assert_eq!(mode("secrets"), 0o700);
    for file in [
        "vimana.db",
        "lock",
        "secrets/authority.pem",
        "secrets/scheduler",
    ] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let World { running, dir, .. } = World::new().await;
    let world = World {
        running,
        dir,
        http: client(),
    };
    let token = world.token().await;
    let (id, _) = world.held_vm(&token, "kept").await;
    let World { running, dir, http } = world;
    running.stop().await.unwrap();
    let running = start(config(dir.path())).await.unwrap();
    assert_eq!(running.admin_password(), None);
    let world = World { running, dir, http };
    let vm = world.get(&format!("/api/v1/vms/{id}")).bearer_auth(&token);
    assert_eq!(vm.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn stopping_ends_open_streams_and_sockets_soon() {
    let world = World::new().await;
    let token = world.token().await;
    let stream = world
        .get("/api/v1/events")
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    let mut stream = stream.bytes_stream();
    stream.next().await.unwrap().unwrap();
    let url = world.websocket_url("/api/v1/console");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let begun = Instant::now();
    world.running.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(stream.next().await.is_none());
    let end = socket.next().await.unwrap().unwrap();
    assert!(end.to_string().contains("stopping"), "{end}");
}
