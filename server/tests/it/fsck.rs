//! `vimana-server fsck` as an operator meets it: a process beside a server
//! that runs, with real agents, or beside none.

mod load;
pub mod scene;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use vimana_model::{ImageId, VmId, VmState};

use crate::agent::Agent;
use scene::{Installation as _, Scene, Told, fsck};

/// Exactly these checks, in their order, of these names.
fn assert_found(report: &Value, expected: &[(&str, &str)]) {
    let found: Vec<(&str, &str)> = report["breaches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|breach| {
            let subject = &breach["subject"];
            let name = subject["name"].as_str().or(subject["id"].as_str());
            (breach["check"].as_str().unwrap(), name.unwrap())
        })
        .collect();
    assert_eq!(found, expected, "{report:#}");
}

#[tokio::test]
async fn an_installation_at_work_is_clean() {
    let mut scene = Scene::new(&["host-a", "host-b"]).await;
    let saved = scene.vm("saved").await;
    scene.watch.client.stop_vm(saved).await.unwrap();
    scene.watch.until_vm(saved, VmState::Stopped).await;
    let asleep = scene.vm("asleep").await;
    scene.watch.client.suspend_vm(asleep).await.unwrap();
    scene.watch.until_vm(asleep, VmState::Suspended).await;
    scene.vm("at-work").await;

    let Told { status, out, err } = scene.fsck(&[]).await;
    assert_eq!(
        out,
        "2 of 2 hosts said what they hold\nclean: every rule holds\n"
    );
    assert_eq!((status, err.as_str()), (0, ""));
    let clean = json!({
        "clean": true, "whole": true, "unread": [], "breaches": [],
        "hosts": { "server_runs": true, "recorded": 2, "silent": [] },
    });
    assert_eq!(scene.report(0, &[]).await, clean);

    let Told { status, out, .. } = scene.fsck(&["--without-hosts"]).await;
    assert_eq!(out, "hosts were not asked\nclean: every rule holds\n");
    assert_eq!(status, 0);
    scene.stop().await;
}

#[tokio::test]
async fn a_breach_is_named_with_what_to_do_about_it() {
    let mut scene = Scene::new(&["host-a"]).await;
    let vm = scene.vm("web-1").await;
    let (host, tenant) = (scene.agents[0].host_id, scene.tenant_of(vm).await);
    scene
        .plant("UPDATE claims SET vcpus = vcpus + 1; UPDATE hosts SET used_vcpus = used_vcpus + 1")
        .await;
    let what = "it is Running and claims 2 vCPUs, 128 MiB memory, 1 GiB disk \
                instead of 1 vCPUs, 128 MiB memory, 1 GiB disk";
    let report = scene.report(1, &[]).await;
    let breach = &report["breaches"][0];
    let advice = breach["advice"].as_str().unwrap();
    assert!(!advice.is_empty());
    let expected = json!({
        "clean": false, "whole": true, "unread": [],
        "hosts": { "server_runs": true, "recorded": 1, "silent": [] },
        "breaches": [{
            "check": "claim_of_other_size",
            "rule": "one_placement",
            "number": 5,
            "sentence": "a VM has one placement, and a claim that fits its state",
            "subject": {
                "kind": "vm", "id": vm, "name": "web-1",
                "tenant": { "id": tenant, "name": "default" },
                "host": { "id": host, "name": "host-a" },
            },
            "what": what,
            "advice": advice,
        }],
    });
    assert_eq!(report, expected);

    let Told { status, out, err } = scene.fsck(&[]).await;
    let expected = format!(
        "rule 5: a VM has one placement, and a claim that fits its state\n  \
           VM web-1 ({vm}), tenant default ({tenant}), host host-a ({host})\n  \
           {what}\n  \
           to do: {advice}\n\
         \n\
         1 of 1 hosts said what they hold\n\
         1 breach\n"
    );
    assert_eq!(out, expected);
    assert_eq!((status, err.as_str()), (1, ""));
    scene.stop().await;
}

#[tokio::test]
async fn what_hosts_hold_is_compared_beside_a_server_that_runs() {
    let mut scene = Scene::new(&["host-a", "host-b"]).await;
    let twice = scene.vm("twice").await;
    let moved = scene.vm("moved").await;
    let other = scene.machine_without(twice);
    scene.runs(other, twice).await;
    let stranger = VmId::from_parts(1, [9; 10]);
    scene.runs(other, stranger).await;
    scene
        .plant(&format!(
            "UPDATE vms SET run_epoch = run_epoch + 1 WHERE id = '{moved}'"
        ))
        .await;
    let stranger = stranger.to_string();
    let expected = [
        ("runs_twice", "twice"),
        ("held_unrecorded", stranger.as_str()),
        ("power_differs", "moved"),
    ];
    assert_found(&scene.report(1, &[]).await, &expected);
    // Two that write to what was one disk: the first thing that is told.
    let told = scene.fsck(&[]).await.out;
    assert!(told.starts_with("rule 1: a writable disk has"), "{told}");
    assert!(told.contains("vimana host discard"), "{told}");
    assert_found(&scene.report(0, &["--without-hosts"]).await, &[]);
    scene.stop().await;
}

#[tokio::test]
async fn copies_in_the_datastore_are_looked_at() {
    let mut scene = Scene::new(&["host-a"]).await;
    let mut dirs = Vec::new();
    for name in ["short", "half", "lost"] {
        let vm = scene.vm(name).await;
        scene.watch.client.stop_vm(vm).await.unwrap();
        let run = scene.watch.until_vm(vm, VmState::Stopped).await.run_epoch;
        dirs.push(scene.saved().join(vm.to_string()).join(run.to_string()));
    }
    assert_found(&scene.report(0, &[]).await, &[]);
    let memory = dirs[0].join("memory");
    let length = std::fs::metadata(&memory).unwrap().len();
    let file = std::fs::File::options().write(true).open(&memory).unwrap();
    file.set_len(length - 1).unwrap();
    std::fs::remove_file(dirs[1].join("disk")).unwrap();
    std::fs::remove_dir_all(&dirs[2]).unwrap();
    let expected = [
        ("copy_gone", "lost"),
        ("part_missing", "half"),
        ("part_of_other_size", "short"),
    ];
    assert_found(&scene.report(1, &[]).await, &expected);

    // A server would remove it in its next turn.
    let scene = scene.stop().await;
    let stranger = VmId::from_parts(1, [9; 10]).to_string();
    std::fs::create_dir(scene.saved().join(&stranger)).unwrap();
    // What came of an upload that broke off is no copy.
    let staging = scene.saved().join(".staged");
    std::fs::create_dir_all(&staging).unwrap();
    let half = VmId::from_parts(2, [9; 10]);
    std::fs::write(staging.join(format!("{half}.1.disk")), b"half").unwrap();
    let expected = [&[("copy_of_nobody", stranger.as_str())], &expected[..]].concat();
    assert_found(&scene.report(1, &[]).await, &expected);
}

#[tokio::test]
async fn files_of_images_are_looked_at() {
    let scene = Scene::new(&["host-a"]).await;
    let images = scene.saved().with_file_name("images");
    let entries = std::fs::read_dir(&images).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.is_file()).collect();
    assert_eq!(files.len(), 1);
    let whole = std::fs::read(&files[0]).unwrap();
    std::fs::remove_file(&files[0]).unwrap();
    assert_found(&scene.report(1, &[]).await, &[("image_gone", "demo")]);
    std::fs::write(&files[0], b"half of it").unwrap();
    let expected = [("image_of_other_size", "demo")];
    assert_found(&scene.report(1, &[]).await, &expected);
    std::fs::write(&files[0], &whole).unwrap();
    assert_found(&scene.report(0, &[]).await, &[]);

    // A server would remove it in its next turn.
    let scene = scene.stop().await;
    let stranger = ImageId::from_parts(1, [9; 10]).to_string();
    std::fs::write(images.join(format!("{stranger}.raw")), b"x").unwrap();
    let expected = [("image_of_nobody", stranger.as_str())];
    assert_found(&scene.report(1, &["--without-hosts"]).await, &expected);
}

#[tokio::test]
async fn a_host_that_is_not_heard_makes_the_answer_less_than_whole() {
    let mut scene = Scene::new(&["host-a", "host-b"]).await;
    scene.vm("web-1").await;
    let away = scene.agents.pop().unwrap();
    let id = away.host_id;
    away.stop().await;
    let Told { status, out, err } = scene.fsck(&[]).await;
    let silent = format!("1 of 2 hosts did not answer: host-b ({id})\n");
    let less = "no breach, but not everything could be looked at\n";
    assert_eq!(out, format!("{silent}{less}"));
    assert_eq!((status, err.as_str()), (2, ""));
    let report = scene.report(2, &[]).await;
    let silent = json!([{ "id": id, "name": "host-b" }]);
    let hosts = json!({ "server_runs": true, "recorded": 2, "silent": silent });
    assert_eq!(report["hosts"], hosts);
    assert_eq!(
        (&report["clean"], &report["whole"]),
        (&json!(true), &json!(false))
    );

    // Where something is found it counts, whoever is silent.
    scene.plant("UPDATE event_counter SET seq = seq + 1").await;
    let report = scene.report(1, &[]).await;
    assert_found(&report, &[("counter_is_off", "events")]);
    assert_eq!(report["hosts"], hosts);
    assert_eq!(report["whole"], false);
    scene.plant("UPDATE event_counter SET seq = seq - 1").await;
    scene.report(0, &["--without-hosts"]).await;

    // One that was sent away is not missed.
    scene.watch.client.revoke_host(id).await.unwrap();
    let hosts = json!({ "server_runs": true, "recorded": 1, "silent": [] });
    assert_eq!(scene.report(0, &[]).await["hosts"], hosts);
    scene.stop().await;
}

/// Connected, and yet without an answer.
#[tokio::test]
async fn a_host_that_is_mute_is_told_as_silent() {
    let scene = Scene::new(&["host-a"]).await;
    let mut mute = Agent::joined(&scene.world, 1).await;
    let _session = mute.session().await;
    let report = scene.report(2, &[]).await;
    let silent = json!([{ "id": mute.id, "name": "host-1" }]);
    assert_eq!(report["hosts"]["silent"], silent);
    assert_found(&report, &[]);
    scene.stop().await;
}

#[tokio::test]
async fn without_a_server_no_host_is_heard() {
    let mut scene = Scene::new(&["host-a"]).await;
    scene.vm("web-1").await;
    let id = scene.agents[0].host_id;
    let scene = scene.stop().await;
    let Told { status, out, .. } = scene.fsck(&[]).await;
    let expected = format!(
        "no server runs here that could ask the hosts; 1 of 1 hosts did not answer: host-a ({id})\n\
         no breach, but not everything could be looked at\n"
    );
    assert_eq!((status, out), (2, expected));
    scene.report(0, &["--without-hosts"]).await;

    // One that gives no sensible answer.
    let socket = scene.data().join("control.sock");
    std::fs::remove_file(&socket).unwrap();
    let socket = UnixListener::bind(socket).unwrap();
    let nonsense = tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            stream.write_all(b"nonsense").await.unwrap();
        }
    });
    let report = scene.report(2, &[]).await;
    let why = report["unread"][0].as_str().unwrap();
    assert_eq!(
        why,
        "the hosts could not be asked: the server gave no sensible answer: expected ident at line 1 column 2"
    );
    assert_eq!(report["hosts"]["silent"].as_array().unwrap().len(), 1);
    nonsense.abort();
}

#[tokio::test]
async fn what_cannot_be_read_is_neither_clean_nor_a_breach() {
    let scene = Scene::new(&[]).await.stop().await;
    scene.report(0, &[]).await;
    // The datastore alone: the rest is looked at all the same.
    std::fs::remove_dir_all(scene.saved()).ok();
    std::fs::write(scene.saved(), "no directory").unwrap();
    let report = scene.report(2, &[]).await;
    let why = report["unread"][0].as_str().unwrap();
    assert!(why.starts_with("the datastore cannot be read: "), "{why}");
    scene.plant("UPDATE event_counter SET seq = seq + 1").await;
    let report = scene.report(1, &[]).await;
    assert_found(&report, &[("counter_is_off", "events")]);
    assert_eq!(report["whole"], false);

    let database = scene.data().join("vimana.db");
    let sane = std::fs::read(&database).unwrap();
    std::fs::write(&database, "no database".repeat(1000)).unwrap();
    assert_unchecked(&scene.fsck(&["--json"]).await);
    // Of another version.
    std::fs::write(&database, sane).unwrap();
    scene
        .plant("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 0)")
        .await;
    let told = scene.fsck(&[]).await;
    assert!(told.err.contains("newer than this program's"), "{told:?}");
    assert_unchecked(&told);
    std::fs::remove_file(&database).unwrap();
    assert_unchecked(&scene.fsck(&[]).await);
    // It makes nothing, neither a file nor a directory.
    assert!(!database.exists());
    let nowhere = scene.data().join("nowhere");
    assert_unchecked(&fsck(&nowhere, &[]).await);
    assert!(!nowhere.exists());
}

fn assert_unchecked(told: &Told) {
    assert_eq!((told.status, told.out.as_str()), (2, ""), "{told:?}");
    assert!(told.err.starts_with("vimana-server: cannot"), "{told:?}");
}

#[tokio::test]
async fn a_corrupt_row_hides_nothing_beside_a_server_that_runs() {
    let mut scene = Scene::new(&["host-a"]).await;
    let corrupt = scene.vm("corrupt").await;
    scene.vm("sane").await;
    scene
        .plant(&format!(
            "UPDATE vms SET state = 'nonsense' WHERE id = '{corrupt}'"
        ))
        .await;
    scene
        .plant("UPDATE vms SET request_id = 'req_00000000000170009090909090909090' WHERE name = 'sane'")
        .await;
    scene
        .plant("UPDATE events SET event = '{' WHERE seq = 1; UPDATE images SET size_bytes = -1")
        .await;
    let report = scene.report(1, &[]).await;
    let corrupt = corrupt.to_string();
    let image = report["breaches"][2]["subject"]["id"].as_str().unwrap();
    assert!(image.starts_with("image_"), "{image}");
    let expected = [
        ("request_gone", "sane"),
        ("corrupt_row", corrupt.as_str()),
        ("corrupt_row", image),
        ("corrupt_row", "1"),
    ];
    assert_found(&report, &expected);
    scene.stop().await;
}

/// Neither what is in order nor what is corrupt is ever repeated.
#[tokio::test]
async fn no_secret_is_printed() {
    let mut scene = Scene::new(&["host-a"]).await;
    scene.vm("web-1").await;
    let secrets = "\
        UPDATE users SET password_hash = 'SECRET-1', staff = 'SECRET-2'; \
        UPDATE tokens SET hash = 'SECRET-3' || id, id = 'SECRET-4' || id; \
        INSERT INTO sessions VALUES ('SECRET-5', '{SECRET-6', 1); \
        UPDATE join_tokens SET secret_hash = 'SECRET-7' || id, host_name = 'SECRET-8!'; \
        INSERT INTO idempotency_keys VALUES ('SECRET-9', 'SECRET-10', 'SECRET-11', '{SECRET-12', 1); \
        UPDATE vms SET user_data = 'SECRET-13', ssh_key = 'SECRET-14', saved = '{SECRET-15'; \
        UPDATE hosts SET certificate = '{\"SECRET-16\"'; \
        UPDATE operations SET error = 'SECRET-17', steps = '[SECRET-18', requested_by = 'SECRET-19'; \
        UPDATE images SET source = 'SECRET-21', failure = 'SECRET-22', origin = '{SECRET-23'; \
        UPDATE events SET event = '{SECRET-20'";
    scene.plant(secrets).await;
    for args in [&["--json"][..], &[]] {
        let told = scene.fsck(args).await;
        assert_eq!(told.status, 1);
        for table in [
            "users",
            "tokens",
            "sessions",
            "join_tokens",
            "idempotency_keys",
        ] {
            assert!(
                told.out.contains(&format!(" in {table} makes no sense")),
                "{table}"
            );
        }
        assert!(!format!("{told:?}").contains("SECRET"), "{told:#?}");
    }
    let patient = tokio::time::timeout(Duration::from_secs(60), scene.stop());
    patient.await.unwrap();
}
