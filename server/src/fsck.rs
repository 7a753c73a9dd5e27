//! Recomputes the rules that always hold, from the database, the files of the
//! server and what the hosts say. Reads only, beside a server that runs or without one.

mod looks;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use vimana_datastore::{DatastoreDriver as _, DirDatastore};
use vimana_engine::check::{Named, Outside, check, hosts_to_hear};
use vimana_model::datastore::{DatastoreDir, MAIN};
use vimana_model::name::DatastoreName;
use vimana_model::{Error, HostId};
use vimana_repository::{DirRepository, Repository as _, Terms};
use vimana_store::{Conn, Store, backup};

use crate::config::open_datastore;
use crate::control;
use crate::data_dir::Layout;
use crate::tool::Place;
use looks::{Look, is_enough, sum_up};
use report::{Hosts, Report};

/// An installation that works moves on between two looks: what it is looked
/// at for must be there again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

#[derive(Args, Debug)]
#[command(after_help = EXIT)]
pub struct FsckArgs {
    #[command(flatten)]
    pub place: Place,
    /// Where the server keeps backups, as it is told; may be repeated
    #[arg(
        long,
        env = "VIMANA_DATASTORE",
        value_name = "NAME=DIR",
        value_delimiter = ','
    )]
    pub datastore: Vec<DatastoreDir>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Do not ask the hosts what they hold: check the database, the datastores
    /// and the images alone
    #[arg(long)]
    pub without_hosts: bool,
}

const EXIT: &str = "\
Exit status:
  0  clean: everything could be looked at, and every rule holds
  1  at least one breach, whether everything could be looked at or not
  2  no breach was found, but not everything could be looked at: a host did
     not answer, no server runs that could ask the hosts, or a datastore, the
     images or the database cannot be read";

/// Looks, and prints what is not as it must be.
///
/// # Errors
/// The database cannot be read.
pub async fn fsck(args: &FsckArgs) -> anyhow::Result<ExitCode> {
    let report = look(args).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.exit())
}

async fn look(args: &FsckArgs) -> anyhow::Result<Report> {
    let layout = Layout::of(&args.place.data_dir)?;
    let url = args.place.database_url.clone();
    let store = Store::open_beside(&url.unwrap_or_else(|| layout.database_url()))
        .await
        .context("cannot open the database")?;
    let mut looks = Vec::new();
    loop {
        looks.push(look_once(&store, &layout, args).await?);
        if is_enough(&looks) {
            break;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    // Only read: nothing can be lost by an end without a farewell.
    let _closed = store.close().await;
    Ok(sum_up(looks))
}

async fn look_once(store: &Store, layout: &Layout, args: &FsckArgs) -> anyhow::Result<Look> {
    let unreadable =
        |error: Error| anyhow::anyhow!("{error:?}").context("cannot read the database");
    let main = DatastoreName::new(MAIN)?;
    let mut outside = Outside::default();
    let mut unread = Vec::new();
    let hosts = if args.without_hosts {
        None
    } else {
        // Before they are asked: one that joins meanwhile is not silent.
        let expected = hosts_to_hear(&store.read()).await.map_err(unreadable)?;
        let (hosts, why) = ask(&layout.control(), expected, &mut outside).await;
        unread.extend(why);
        Some(hosts)
    };
    unread.extend(read_datastores(layout, &main, &args.datastore, &mut outside).await);
    // It is only listed: what is fetched, and on which terms, is the server's.
    let images = DirRepository::new(layout.images(), Terms::default());
    match images.contents().await {
        Ok(contents) => outside.in_repository = Some(contents),
        Err(error) => unread.push(format!("the images cannot be read: {error}")),
    }
    // After hosts and files: whatever they say has a record by then.
    let snapshot = store
        .snapshot()
        .await
        .map_err(|error| unreadable(error.into()))?;
    unread.extend(
        unnamed(&snapshot, &outside, &args.datastore)
            .await
            .map_err(unreadable)?,
    );
    let breaches = check(&snapshot, &outside).await.map_err(unreadable)?;
    Ok(Look {
        breaches,
        hosts,
        unread,
    })
}

/// What the datastores hold; returns why some cannot be read.
async fn read_datastores(
    layout: &Layout,
    main: &DatastoreName,
    others: &[DatastoreDir],
    outside: &mut Outside,
) -> Vec<String> {
    let mut unread = Vec::new();
    match DirDatastore::new(layout.saved()).contents().await {
        Ok(contents) => {
            outside.in_datastore = Some(contents.saved);
            outside.backups.insert(main.clone(), contents.backups);
        }
        Err(error) => unread.push(format!("the datastore cannot be read: {error}")),
    }
    for source in others {
        let name = &source.name;
        let datastore = match open_datastore(source) {
            Ok(datastore) => datastore,
            Err(error) => {
                unread.push(error.to_string());
                continue;
            }
        };
        match datastore.contents().await {
            Ok(contents) => {
                outside.backups.insert(name.clone(), contents.backups);
            }
            Err(error) => unread.push(format!("datastore {name} cannot be read: {error}")),
        }
    }
    unread
}

/// Datastores that records speak of and nobody said where they are.
async fn unnamed(
    conn: &impl Conn,
    outside: &Outside,
    named: &[DatastoreDir],
) -> Result<Vec<String>, Error> {
    let backups = backup::with_content(conn).await?;
    let recorded: BTreeSet<_> = backups.into_iter().map(|backup| backup.datastore).collect();
    let unknown = recorded.into_iter().filter(|name| {
        name.as_str() != MAIN
            && !outside.backups.contains_key(name)
            && named.iter().all(|source| source.name != *name)
    });
    Ok(unknown
        .map(|name| {
            format!("datastore {name} holds backups: say where it is with --datastore {name}=DIR")
        })
        .collect())
}

/// Has the server ask its hosts; and why it could not.
async fn ask(
    socket: &Path,
    expected: BTreeMap<HostId, Named>,
    outside: &mut Outside,
) -> (Hosts, Option<String>) {
    let (server_runs, why) = match control::ask(socket).await {
        Ok(Some(inventories)) => {
            *outside = inventories.held.into_iter().collect();
            (true, None)
        }
        Ok(None) => (false, None),
        Err(error) => (
            true,
            Some(format!("the hosts could not be asked: {error:#}")),
        ),
    };
    let recorded = expected.len();
    let heard = |host: &HostId| outside.inventories.contains_key(host);
    let silent = expected.into_iter().filter(|(id, _)| !heard(id));
    let hosts = Hosts {
        server_runs,
        recorded,
        silent: silent.map(|(_, named)| named).collect(),
    };
    (hosts, why)
}
