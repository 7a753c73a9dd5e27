use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;
use vimana_client::{Client, Console, Notice};
use vimana_model::vm::CreateVm;
use vimana_model::{VmId, VmState};

use crate::fleet;
use crate::world::World;

const SOON: Duration = Duration::from_secs(10);

/// A VM that runs, found so on the event stream.
async fn running_vm(client: &Client) -> VmId {
    let mut notices = client.events(None).boxed();
    assert_eq!(notices.next().await.unwrap().unwrap(), Notice::Connected);
    let form = CreateVm {
        name: "web-1".to_owned(),
        image: "demo".to_owned(),
        flavor: "tiny".to_owned(),
        ..CreateVm::default()
    };
    let id = client.create_vm(&form).await.unwrap().vm.id;
    loop {
        let notice = timeout(SOON, notices.next()).await.unwrap().unwrap();
        if let Notice::Item(item) = notice.unwrap()
            && item.vm.is_some_and(|vm| vm.state == VmState::Running)
        {
            return id;
        }
    }
}

async fn world() -> (World, Client, VmId) {
    let world = World::new().await;
    fleet::join(&world).await;
    let token = world.token().await;
    let client = Client::new(world.running.url().parse().unwrap(), None).unwrap();
    let client = client.with_token(&token);
    let id = running_vm(&client).await;
    (world, client, id)
}

async fn read(console: &mut Console, length: usize) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < length {
        let bytes = timeout(SOON, console.reader.read()).await.unwrap().unwrap();
        read.extend_from_slice(&bytes.unwrap());
    }
    read
}

#[tokio::test]
async fn a_console_carries_bytes_both_ways() {
    let (_world, client, id) = world().await;
    let mut console = client.console(id).await.unwrap();
    // More than fits the channels between the two connections.
    let piece: Vec<u8> = (0..=255).cycle().take(32 << 10).collect();
    for _ in 0..100 {
        console
            .writer
            .write(Bytes::from(piece.clone()))
            .await
            .unwrap();
        assert_eq!(read(&mut console, piece.len()).await, piece);
    }
    console.writer.close().await.unwrap();
}

#[tokio::test]
async fn a_viewer_reads_why_the_line_broke() {
    let (_world, client, id) = world().await;
    let mut console = client.console(id).await.unwrap();
    console.writer.write(Bytes::from("break")).await.unwrap();
    let told = "\r\n[the machine's serial line broke]\r\n";
    assert_eq!(read(&mut console, told.len()).await, told.as_bytes());
    let end = timeout(SOON, console.reader.read()).await.unwrap().unwrap();
    assert_eq!(end, None);
}

#[tokio::test]
async fn a_ticket_opens_one_console_once() {
    let (world, client, id) = world().await;
    let ticket = client.console_ticket(id).await.unwrap();
    let hello = serde_json::json!({ "ticket": ticket.ticket }).to_string();
    let data = world.dir.path().join("data");
    let mut ends = Vec::new();
    for _ in 0..2 {
        let mut socket = fleet::dial(&world.running.url(), &data, &ticket.path, None).await;
        futures::SinkExt::send(&mut socket, hello.clone().into())
            .await
            .unwrap();
        futures::SinkExt::send(&mut socket, Bytes::from("hi").into())
            .await
            .unwrap();
        let mut next = async || timeout(SOON, socket.next()).await.unwrap();
        ends.push([next().await, next().await].map(|it| it.and_then(Result::ok)));
    }
    let [said, echoed] = &ends[0];
    assert_eq!(*said, Some(Bytes::new().into()), "the line is open");
    assert_eq!(*echoed, Some(Bytes::from("hi").into()));
    let refused = ends[1][0].as_ref().unwrap();
    assert!(refused.is_close(), "{refused:?}");
}
