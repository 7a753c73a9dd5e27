//! Recomputes the rules that always hold, from the database, the datastore and
//! what the hosts say. Reads only, beside a server that runs.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use vimana_engine::check::{Breach, Outside, Rule, check, lasting};
use vimana_engine::{Datastore, DirDatastore};
use vimana_store::{Store, StoreError};

use crate::control;
use crate::data_dir::Layout;
use crate::tool::Place;

/// A running installation moves on between two reads: a breach must be there
/// again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often a breach must be seen while a server runs.
const LOOKS: u32 = 3;

#[derive(Args, Debug)]
pub struct FsckArgs {
    #[command(flatten)]
    pub place: Place,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub clean: bool,
    /// Whether a server runs; without one no host can be asked.
    pub server_runs: bool,
    /// How many hosts said what they hold.
    pub hosts_asked: usize,
    pub breaches: Vec<Found>,
}

/// A breach, with what it breaks.
#[derive(Debug, Serialize)]
pub struct Found {
    pub rule: Rule,
    pub number: u8,
    pub sentence: &'static str,
    pub subject: String,
    pub what: String,
}

impl From<Breach> for Found {
    fn from(breach: Breach) -> Self {
        let Breach {
            rule,
            subject,
            what,
        } = breach;
        Self {
            rule,
            number: rule.number(),
            sentence: rule.sentence(),
            subject,
            what,
        }
    }
}

/// Whether everything is as it must be; prints what is not.
///
/// # Errors
/// The database or the datastore cannot be read.
pub async fn fsck(args: &FsckArgs) -> anyhow::Result<bool> {
    let report = look(&args.place).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(report.clean);
    }
    if report.server_runs {
        println!("asked {} hosts what they hold", report.hosts_asked);
    } else {
        println!("no server runs here, so that no host was asked");
    }
    for found in &report.breaches {
        let Found {
            number,
            sentence,
            subject,
            what,
            ..
        } = found;
        println!("rule {number} ({sentence}): {subject}: {what}");
    }
    match report.breaches.len() {
        0 => println!("clean: every rule holds"),
        1 => println!("1 breach"),
        count => println!("{count} breaches"),
    }
    Ok(report.clean)
}

/// Looks, without printing.
///
/// # Errors
/// The database or the datastore cannot be read.
pub async fn look(place: &Place) -> anyhow::Result<Report> {
    let layout = Layout::of(&place.data_dir)?;
    let url = place.database_url.clone();
    let store = Store::open_beside(&url.unwrap_or_else(|| layout.database_url()))
        .await
        .context("cannot open the database")?;
    let mut outside = around(&layout).await?;
    let server_runs = outside.is_some();
    let mut breaches = judge(&store, outside.take().unwrap_or_default(), &layout).await?;
    let mut hosts_asked = breaches.1;
    let looks = if server_runs { LOOKS } else { 1 };
    for _ in 1..looks {
        if breaches.0.is_empty() {
            break;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        let outside = around(&layout).await?.unwrap_or_default();
        let again = judge(&store, outside, &layout).await?;
        hosts_asked = again.1;
        breaches.0 = lasting(&breaches.0, again.0);
    }
    // Only read: nothing can be lost by an end without a farewell.
    let _closed = store.close().await;
    Ok(Report {
        clean: breaches.0.is_empty(),
        server_runs,
        hosts_asked,
        breaches: breaches.0.into_iter().map(Found::from).collect(),
    })
}

/// What the hosts hold; `None` where no server runs that could ask them.
async fn around(layout: &Layout) -> anyhow::Result<Option<Outside>> {
    let inventories = control::ask(&layout.control()).await?;
    Ok(inventories.map(|inventories| Outside {
        inventories: inventories.held,
        in_datastore: None,
    }))
}

/// The breaches, and how many hosts were heard.
async fn judge(
    store: &Store,
    mut outside: Outside,
    layout: &Layout,
) -> anyhow::Result<(Vec<Breach>, usize)> {
    let held = DirDatastore::new(layout.saved()).holds().await;
    outside.in_datastore = Some(held.context("cannot read the datastore")?);
    let heard = outside.inventories.len();
    match check(&store.read(), &outside).await {
        Ok(breaches) => Ok((breaches, heard)),
        Err(error) => {
            let corrupt = error
                .source
                .as_deref()
                .and_then(|source| source.downcast_ref::<StoreError>())
                .and_then(corrupt_row);
            let Some(what) = corrupt else {
                return Err(anyhow::anyhow!("{error:?}").context("cannot read the database"));
            };
            let breach = Breach {
                rule: Rule::SaneRows,
                subject: "database".to_owned(),
                what: format!("{what} makes no sense"),
            };
            Ok((vec![breach], heard))
        }
    }
}

fn corrupt_row(error: &StoreError) -> Option<String> {
    if let StoreError::Corrupt { what } = error {
        Some(what.clone())
    } else {
        None
    }
}
