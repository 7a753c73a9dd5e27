//! The command as scripts meet it: what it asks, what it prints, how it ends.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail like the tests themselves"
)]

#[path = "cli/server.rs"]
mod server;

use serde_json::{Value, json};

use server::{Fault, Server, id_of};

#[tokio::test]
async fn waiting_ends_well_when_what_was_asked_is_through() {
    let server = Server::new().await;
    server.has_vm("web-1", "running");
    server.ends("suspended", "succeeded", None);
    let ran = server.run("vm suspend web-1 --wait").await;
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let id = id_of("web-1");
    assert_eq!(ran.out, format!("web-1 ({id}) is suspended\n"));
    assert_eq!(server.asked(), [format!("POST /vms/{id}/suspend ")]);
}

#[tokio::test]
async fn a_failed_operation_is_a_failure_with_its_reason() {
    let server = Server::new().await;
    server.has_vm("web-1", "running");
    server.ends("running", "failed", Some("no room on the disk"));
    for wait in ["--wait", "--wait suspended"] {
        let ran = server.run(&format!("vm suspend web-1 {wait}")).await;
        assert_eq!((ran.status, ran.out.as_str()), (1, ""));
        assert_eq!(
            ran.err,
            "vimana: the suspend of `web-1` failed: no room on the disk; it is running\n"
        );
    }
}

#[tokio::test]
async fn a_state_that_cannot_come_any_more_is_a_failure() {
    let server = Server::new().await;
    server.has_vm("web-1", "running");
    server.ends("done", "succeeded", None);
    let ran = server.run("vm delete web-1 --wait running").await;
    assert_eq!(ran.status, 1);
    assert_eq!(
        ran.err,
        "vimana: `web-1` is done and will never be running\n"
    );
}

#[tokio::test]
async fn patience_ends() {
    let server = Server::new().await;
    server.has_vm("web-1", "running");
    let ran = server.run("vm stop web-1 --wait --timeout 1").await;
    assert_eq!(ran.status, 1);
    assert_eq!(
        ran.err,
        "vimana: the stop of `web-1` is not through after 1 s and goes on; the VM is running\n"
    );
}

#[tokio::test]
async fn of_several_each_is_asked_and_each_answer_told() {
    let server = Server::new().await;
    for name in ["a", "b", "c"] {
        server.has_vm(name, "running");
    }
    server.refuses("b", "`b` is already suspended");
    server.ends("suspended", "succeeded", None);
    let ran = server.run("vm suspend a b c a --wait --json").await;
    assert_eq!(ran.status, 1);
    assert_eq!(ran.err, "vimana: `b` is already suspended\n");
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    let states: Vec<_> = printed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["vm"]["name"].as_str(), it["operation"]["state"].as_str()))
        .collect();
    let succeeded = Some("succeeded");
    assert_eq!(states, [(Some("a"), succeeded), (Some("c"), succeeded)]);
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn nothing_is_asked_when_a_name_means_nothing() {
    let server = Server::new().await;
    server.has_vm("a", "running");
    let ran = server.run("vm delete a nobody").await;
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert_eq!(ran.err, "vimana: vm `nobody` not found\n");
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn one_vm_is_one_object_and_forms_are_sent() {
    let server = Server::new().await;
    server.has_vm("a", "running");
    let ran = server.run("vm poweroff a --force --json").await;
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(printed["vm"]["name"], "a");
    server.run("vm resize a --vcpus 2 --memory-mib 512").await;
    let id = id_of("a");
    let resized = format!(r#"POST /vms/{id}/resize {{"vcpus":2,"memory_mib":512}}"#);
    assert_eq!(
        server.asked(),
        [
            format!(r#"POST /vms/{id}/poweroff {{"force":true}}"#),
            resized
        ]
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_not_asked() {
    let server = Server::new().await;
    for line in [
        "vm resize a",
        "vm suspend",
        "vm suspend a --wait gone",
        "vm suspend a --timeout 5",
        "request reject web-1",
        "tenant set-kind lab odd",
        "user create ann --tenant lab --role admin --password-stdin",
        "operation cancel vm_1",
        "host evacuate a --limit 17",
        "host evacuate a --limit 0 --wait",
        "host evacuate a --timeout 5",
    ] {
        assert_eq!(server.run(line).await.status, 2, "{line}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_host_is_cordoned_and_enabled() {
    let server = Server::new().await;
    let ran = server.run("host cordon a").await;
    assert_eq!((ran.status, ran.out.as_str()), (0, "a is cordoned\n"));
    let ran = server.run("host enable a --json").await;
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(printed["state"], "enabled");
    let none = server.run("host cordon none").await;
    assert_eq!(none.err, "vimana: host `none` not found\n");
    let id = format!("host_{:032x}", 1);
    assert_eq!(
        server.asked(),
        [
            format!("POST /hosts/{id}/cordon"),
            format!("POST /hosts/{id}/enable")
        ]
    );
}

#[tokio::test]
async fn an_evacuation_is_followed_until_the_host_is_empty() {
    let server = Server::new().await;
    server.evacuates(&[(0, &["x", "y"], &[]), (1, &["y"], &[]), (2, &[], &[])]);
    let ran = server.run("host evacuate a --limit 4 --wait").await;
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert_eq!(ran.out, "a is in maintenance; 2 VMs were moved\n");
    let id = format!("host_{:032x}", 1);
    assert_eq!(
        server.asked(),
        [format!(r#"POST /hosts/{id}/evacuate {{"limit":4}}"#)]
    );
    server.evacuates(&[(1, &["y"], &[])]);
    let ran = server.run("host evacuate a").await;
    assert_eq!(ran.status, 0);
    assert_eq!(ran.out, "a is draining; 1 VM was moved, 1 is on its way\n");
}

#[tokio::test]
async fn an_evacuation_that_cannot_go_on_names_what_stays() {
    let server = Server::new().await;
    let stays = [
        ("x", "host `b` has no room for `x`"),
        ("y", "`y` has failed"),
    ];
    server.evacuates(&[(0, &["z"], &stays), (1, &[], &stays)]);
    let ran = server.run("host evacuate a --wait --json").await;
    assert_eq!(ran.status, 1);
    assert_eq!(
        ran.err,
        "vimana: `x` could not be moved: host `b` has no room for `x`\n\
         vimana: `y` could not be moved: `y` has failed\n"
    );
    let printed: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&printed["moved"], &printed["over"]),
        (&json!(1), &json!(false))
    );
}

#[tokio::test]
async fn changed_terms_go_with_what_they_were_read_from() {
    let server = Server::new().await;
    server.has_request("web-1", "request");
    let ran = server
        .run("request approve web-1 --flavor small --remark cheaper")
        .await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    let asked = server.asked();
    let (path, body) = asked[0].split_at(asked[0].rfind(" {\"remark").unwrap());
    assert!(path.ends_with("/approve"), "{path}");
    let body: Value = serde_json::from_str(body).unwrap();
    let expected = json!({
        "remark": "cheaper", "generation": 3,
        "terms": { "name": "web-1", "image": "demo", "flavor": "small", "hold": false },
    });
    assert_eq!(body, expected);
    server.run("request release web-1").await;
    assert!(server.asked()[1].ends_with("/ask-release {}"));
}

#[tokio::test]
async fn a_rejected_request_ends_the_wait_with_the_reason() {
    let server = Server::new().await;
    server.has_request("web-1", "rejected");
    let ran = server.run("request keep web-1 --wait operation").await;
    assert_eq!(ran.status, 1);
    assert_eq!(
        ran.err,
        "vimana: the request for `web-1` was rejected: no budget\n"
    );
}

#[tokio::test]
async fn a_password_comes_from_standard_input_and_is_not_shown() {
    let server = Server::new().await;
    let line = "user create ann --tenant lab --role viewer --password-stdin";
    let ran = server.run_with(line, "hunter2 hunter2\n").await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(ran.out.contains("is viewer in tenant lab"), "{}", ran.out);
    assert!(!ran.out.contains("hunter2"));
    let asked = server.asked();
    assert!(asked[0].contains(r#""password":"hunter2 hunter2""#));
}

#[tokio::test]
async fn a_vm_starts_from_a_template_with_what_is_filled_in() {
    let (server, dir) = (Server::new().await, tempfile::tempdir().unwrap());
    let password = dir.path().join("password");
    std::fs::write(&password, "hunter2=\n").unwrap();
    let ran = server
        .run(&format!(
            "vm create web-1 --template web --input user=a=b --input-file password={} --flavor tiny",
            password.display()
        ))
        .await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert!(!ran.out.contains("hunter2"), "{}", ran.out);
    let asked = server.asked();
    let form: Value = serde_json::from_str(asked[0].strip_prefix("POST /vms ").unwrap()).unwrap();
    assert_eq!(
        form,
        json!({ "name": "web-1", "template": "web", "flavor": "tiny", "hold": false,
                "inputs": { "user": "a=b", "password": "hunter2=" } })
    );
    for line in [
        "vm create web-1 --image demo",
        "vm create web-1 --image demo --flavor tiny --input a=b",
        "vm create web-1 --template web --input a",
    ] {
        assert_eq!(server.run(line).await.status, 2, "{line}");
    }
}

#[tokio::test]
async fn templates_are_made_of_files_and_found_by_name() {
    let (server, dir) = (Server::new().await, tempfile::tempdir().unwrap());
    let file = dir.path().join("web.json");
    std::fs::write(&file, r#"{ "name": "web", "image": "demo" }"#).unwrap();
    let file = file.display();
    let ran = server
        .run(&format!("template create --file {file} --public"))
        .await;
    assert_eq!(ran.status, 0, "{}", ran.err);
    let shown = server.run("template show web").await;
    assert!(
        shown.out.contains("host (text, required): Host"),
        "{}",
        shown.out
    );
    assert!(
        shown.out.contains("hostname: {input: host}"),
        "{}",
        shown.out
    );
    let own = format!("template_{:032x}", 2);
    assert!(shown.out.contains(&own), "its own before the one for all");
    server
        .run(&format!("template change web --file {file}"))
        .await;
    let ran = server.run("template delete web").await;
    assert_eq!(ran.out, format!("template web ({own}) is deleted\n"));
    assert_eq!(
        server.asked(),
        [
            r#"POST /templates {"name":"web","image":"demo","public":true}"#.to_owned(),
            format!(r#"PATCH /templates/{own} {{"name":"web","image":"demo"}}"#),
            format!("DELETE /templates/{own}"),
        ]
    );
    let none = server.run("template show none").await;
    assert_eq!(none.err, "vimana: template `none` not found\n");
}

#[tokio::test]
async fn flavors_are_made_changed_and_retired() {
    let server = Server::new().await;
    let made = "flavor create odd --vcpus 2 --memory 1024 --disk 4096";
    let ran = server.run(made).await;
    assert_eq!(
        ran.out, "flavor odd is 2 vCPUs, 1 GiB memory, 4 GiB disk\n",
        "{}",
        ran.err
    );
    server.run("flavor change odd --memory 2048").await;
    assert_eq!(server.run("flavor delete odd").await.status, 0);
    assert_eq!(server.run("flavor change odd").await.status, 2);
    assert_eq!(
        server.asked(),
        [
            r#"POST /flavors {"name":"odd","vcpus":2,"memory_mib":1024,"disk_mib":4096}"#,
            r#"PATCH /flavors/odd {"memory_mib":2048}"#,
            "DELETE /flavors/odd",
        ]
    );
}

/// A file of 3 MiB and a little, no two parts of which are the same.
fn image_file(dir: &tempfile::TempDir) -> (String, Vec<u8>) {
    let bytes: Vec<u8> = (0..(3_u32 << 20) + 7)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let path = dir.path().join("debian-12.qcow2");
    std::fs::write(&path, &bytes).unwrap();
    (path.to_str().unwrap().to_owned(), bytes)
}

#[tokio::test]
async fn an_upload_goes_on_whatever_becomes_of_its_parts() {
    let (server, dir) = (Server::new().await, tempfile::tempdir().unwrap());
    let (path, bytes) = image_file(&dir);
    server.breaks(&[Fault::Busy, Fault::Cut, Fault::Unanswered]);
    let ran = server.run(&format!("image upload {path} --json")).await;
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert!(server.sent() == bytes);
    let form = format!(
        r#"{{"name":"debian-12","upload":{{"size_bytes":{},"file_name":"debian-12.qcow2"}},"public":false}}"#,
        bytes.len()
    );
    assert_eq!(server.asked(), [format!("POST /images {form}")]);
}

#[tokio::test]
async fn an_upload_that_was_begun_is_gone_on_with() {
    let (server, dir) = (Server::new().await, tempfile::tempdir().unwrap());
    let (path, bytes) = image_file(&dir);
    let begun = &bytes[..1_000_000];
    server.waits_for("debian-12", "debian-12.qcow2", bytes.len(), begun);
    let ran = server.run(&format!("image upload {path}")).await;
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    assert!(server.sent() == bytes);
    assert_eq!(server.asked(), [] as [&str; 0]);
    // Of another size, it is another file.
    server.waits_for("debian-12", "debian-12.qcow2", 5, b"");
    server.run(&format!("image upload {path}")).await;
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn an_upload_ends_when_nobody_wants_it() {
    let (server, dir) = (Server::new().await, tempfile::tempdir().unwrap());
    let (path, _) = image_file(&dir);
    server.breaks(&[Fault::Deleted]);
    let ran = server.run(&format!("image upload {path}")).await;
    assert_eq!((ran.status, ran.out.as_str()), (1, ""));
    assert_eq!(
        ran.err,
        "vimana: image `debian-12` was not imported: nothing of it is left\n"
    );
    let dir = dir.path().display();
    for (line, status) in [
        (format!("image upload {dir}"), 1),
        (format!("image upload {dir}/none"), 1),
        (format!("image upload {path} --name a/b"), 2),
        (format!("image upload {path} --sha256 abc"), 2),
        ("image import x".to_owned(), 2),
        ("image import x --from ftp://h/x --path /x".to_owned(), 2),
    ] {
        assert_eq!(server.run(&line).await.status, status, "{line}");
    }
    assert_eq!(server.asked().len(), 1);
}
