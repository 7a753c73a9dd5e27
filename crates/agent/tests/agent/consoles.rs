//! Serial consoles, joined to their machines.

use axum::extract::ws::{Message, WebSocket};
use tokio::time::timeout;
use vimana_model::ConsoleId;
use vimana_protocol::agent::{ToAgent, Work};

use crate::orders::{boot, command, prepare, vm};
use crate::world::{PATIENCE, Session, World};

pub async fn open(world: &mut World, session: &mut Session) -> WebSocket {
    let console_id = ConsoleId::from_parts(1, [1; 10]);
    session
        .send(ToAgent::OpenConsole {
            console_id,
            vm_id: vm(1),
        })
        .await;
    world.console().await
}

/// What comes until the text is complete.
pub async fn read_until(console: &mut WebSocket, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let message = timeout(PATIENCE, console.recv()).await.unwrap();
        if let Message::Binary(bytes) = message.unwrap().unwrap() {
            read.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    read
}

/// The reason in the close frame.
pub async fn farewell(console: &mut WebSocket) -> String {
    loop {
        let message = timeout(PATIENCE, console.recv()).await.unwrap();
        if let Message::Close(frame) = message.unwrap().unwrap() {
            return frame.unwrap().reason.to_string();
        }
    }
}

async fn running() -> (World, Session) {
    let mut world = World::new().await;
    let image = world.add_image(b"content");
    let mut session = world.session().await;
    session.carry_out(&prepare(vm(1), 0, &image)).await;
    session.carry_out(&boot(vm(1), 1)).await;
    (world, session)
}

#[tokio::test]
async fn a_console_carries_bytes_both_ways_and_ends_with_the_machine() {
    let (mut world, mut session) = running().await;
    let mut console = open(&mut world, &mut session).await;
    console
        .send(Message::Binary("hello\r".into()))
        .await
        .unwrap();
    read_until(&mut console, "hello").await;
    session.carry_out(&command(vm(1), 2, Work::Kill)).await;
    assert_eq!(
        farewell(&mut console).await,
        "the machine's serial line ended"
    );
}

#[tokio::test]
async fn a_console_of_no_machine_says_why() {
    let mut world = World::new().await;
    let mut session = world.session().await;
    let mut console = open(&mut world, &mut session).await;
    assert!(!farewell(&mut console).await.is_empty());
}

#[tokio::test]
async fn a_text_frame_ends_the_console() {
    let (mut world, mut session) = running().await;
    let mut console = open(&mut world, &mut session).await;
    console.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(
        farewell(&mut console).await,
        "a console takes binary frames"
    );
}
