//! Commits per second of many writers on one SQLite file:
//! `cargo run --release -p vimana-store --example commits -- FILE [WRITERS] [SECONDS]`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use vimana_model::Timestamp;
use vimana_model::event::{Actor, EventKind};
use vimana_store::event::NewEvent;
use vimana_store::{Store, event, write_tx};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn fact(writer: u64) -> NewEvent {
    NewEvent {
        at: Timestamp::from_ms(0),
        actor: Actor::System,
        tenant_id: None,
        vm_id: None,
        host_id: None,
        request_id: None,
        image_id: None,
        volume_id: None,
        event: EventKind::Note {
            text: writer.to_string(),
        },
    }
}

/// How long each of its commits took, until `end`.
async fn write(store: Store, writer: u64, end: Instant) -> Result<Vec<Duration>, Failure> {
    let mut took = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        write_tx!(store, |tx| Ok(event::append(tx, &[fact(writer)]).await?))?;
        took.push(start.elapsed());
    }
    Ok(took)
}

async fn run(file: &str, writers: u64, seconds: u64) -> Result<(), Failure> {
    let store = Store::open(&format!("sqlite://{file}")).await?;
    let before = event::last_seq(&store.read()).await?;
    let end = Instant::now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = (0..writers)
        .map(|writer| tokio::spawn(write(store.clone(), writer, end)))
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let written = event::last_seq(&store.read()).await? - before;
    store.close().await?;
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied();
    println!(
        "{writers} writers: {} commits/s, half within {:?}, 99 % within {:?}",
        written / seconds,
        at(50).unwrap_or_default(),
        at(99).unwrap_or_default(),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(file) = arguments.next() else {
        eprintln!("commits FILE [WRITERS] [SECONDS]");
        return ExitCode::FAILURE;
    };
    let mut number = |default| {
        let given = arguments.next().and_then(|text| text.parse().ok());
        given.unwrap_or(default)
    };
    let (writers, seconds) = (number(64), number(5));
    match run(&file, writers, seconds).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
