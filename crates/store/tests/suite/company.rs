//! Who may have the same database open.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use vimana_store::{Store, StoreError, event, tenant, write_tx};

use super::transactions::{exists, new_tenant};
use super::world::{World, note};

fn file(world: &World) -> &Path {
    Path::new(world.url.strip_prefix("sqlite://").unwrap())
}

async fn assert_refused(url: &str, file: &Path) {
    let error = Store::open(url).await.unwrap_err();
    let told = format!("{} is in use by another vimana-server", file.display());
    assert_eq!(error.to_string(), told);
    assert!(!error.is_retryable());
}

pub async fn second_store_on_a_file_is_refused(world: World) {
    let file = file(&world).canonicalize().unwrap();
    assert_refused(&world.url, &file).await;
    let link = file.with_file_name("link.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_refused(&format!("sqlite://{}", link.display()), &file).await;

    let record = new_tenant(&world, "second");
    let written = write_tx!(world.store, |tx| Ok(tenant::insert(tx, &record).await?));
    written.unwrap();
    // Closed though not dropped, and dropped though not closed.
    world.store.close().await.unwrap();
    let again = Store::open(&world.url).await.unwrap();
    drop(again);
    let world = world.reopen().await;
    assert!(exists(&world, &record).await);
}

const OTHER: &str = "VIMANA_STORE_SUITE_OPENS";

/// Whether this process is no suite, but another that opens a store and keeps
/// it open for as long as its input.
pub fn is_other_process() -> bool {
    let Ok(url) = std::env::var(OTHER) else {
        return false;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::open(&url));
    match &store {
        Ok(_) => println!("open"),
        Err(error) => println!("{error}"),
    }
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    true
}

/// What it says first, and itself.
fn other_process(url: &str) -> (String, Child) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(OTHER, url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let output = child.stdout.as_mut().unwrap();
    BufReader::new(output).read_line(&mut said).unwrap();
    (said.trim_end().to_owned(), child)
}

pub async fn second_process_is_refused_until_the_first_dies(world: World) {
    let url = world.url.clone();
    let real = file(&world).canonicalize().unwrap();
    let refusal = format!("{} is in use by another vimana-server", real.display());
    let (said, mut child) = other_process(&url);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(said, refusal);

    world.store.close().await.unwrap();
    let (said, mut child) = other_process(&url);
    assert_eq!(said, "open");
    assert_refused(&url, &real).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let world = world.reopen().await;
    let found = tenant::find(&world.store.read(), world.tenant.id).await;
    assert_eq!(found.unwrap(), Some(world.tenant));
}

pub async fn tool_reads_and_writes_beside_the_server(world: World) {
    let tool = Store::open_beside(&world.url).await.unwrap();
    let found = tenant::find(&tool.read(), world.tenant.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&world.tenant));
    // In turn, and both at once.
    let writers = (0..20).map(|number| {
        let store = if number % 2 == 0 { &tool } else { &world.store };
        let store = store.clone();
        tokio::spawn(async move {
            write_tx!(store, |tx| {
                event::append(tx, &[note(None, number)]).await?;
                Ok(())
            })
        })
    });
    for written in futures::future::join_all(writers).await {
        written.unwrap().unwrap();
    }
    tool.close().await.unwrap();
    assert_eq!(event::last_seq(&world.store.read()).await.unwrap(), 20);
    world.new_vm("web").await;
}

pub async fn tool_makes_no_tables(world: World) {
    let url = world.empty_database().await;
    if let Some(file) = url.strip_prefix("sqlite://") {
        std::fs::write(file, []).unwrap();
    }
    for _ in 0..2 {
        let error = Store::open_beside(&url).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Schema { how: "older" }),
            "{error:?}"
        );
    }
    // A server does.
    Store::open(&url).await.unwrap();
    Store::open_beside(&url).await.unwrap();
}

pub async fn tool_makes_no_file(world: World) {
    let url = world.empty_database().await;
    let file = url.strip_prefix("sqlite://").unwrap();
    let error = Store::open_beside(&url).await.unwrap_err();
    assert!(error.to_string().contains(file), "{error}");
    assert!(!Path::new(file).exists());
}
