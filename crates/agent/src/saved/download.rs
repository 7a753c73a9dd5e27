//! Saved machines on their way from the server. A file that broke off goes on
//! after what has come of it.

use std::io::{self, SeekFrom};
use std::path::Path;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::fs::File;
use tokio::io::AsyncSeekExt as _;
use vimana_driver::{Fault, FaultKind, SavedPart};

use super::digest::hash_of;
use crate::Meter;
use crate::transfer::{Failure, Inflow, Promise, Transfer, broken, receive_rest, refused};

const FETCHING: &str = "fetching the saved machine";
const MISSING: &str = "the datastore does not have the saved machine";
const WHAT: &str = "the saved machine";

/// One try at a part, after what earlier ones left at `path`. A success leaves
/// it whole, checked and on the disk.
pub async fn try_fetch(
    transfer: &Transfer,
    url: &str,
    path: &Path,
    part: &SavedPart,
    meter: &Meter,
) -> Result<(), Failure> {
    // Made without waiting, so that no file appears after the future is gone.
    let mut options = std::fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = File::from_std(options.open(path).map_err(storing)?);
    let here = file.metadata().await.map_err(storing)?.len();
    let mut inflow = Inflow::default();
    if here <= part.size_bytes {
        inflow.hash = hash_of(&mut file, here).await.map_err(storing)?;
        inflow.received = here;
    } else {
        begin_anew(&mut file, &mut inflow, meter).await?;
    }
    meter.moved(inflow.received);
    let from = inflow.received;
    let result = fetch_rest(transfer, url, &mut file, part, &mut inflow, meter).await;
    match result {
        Ok(()) => {}
        // What had come may be what is wrong.
        Err(Failure::Final(fault)) if fault.kind == FaultKind::BadImage && from > 0 => {
            begin_anew(&mut file, &mut inflow, meter).await?;
            return Err(Failure::Passing(fault));
        }
        Err(failure) => {
            meter.moved_in_vain(inflow.received);
            return Err(failure);
        }
    }
    // Whoever takes it over may only move it.
    file.sync_all().await.map_err(storing)?;
    Ok(())
}

async fn fetch_rest(
    transfer: &Transfer,
    url: &str,
    file: &mut File,
    part: &SavedPart,
    inflow: &mut Inflow,
    meter: &Meter,
) -> Result<(), Failure> {
    let promise = Promise {
        size_bytes: part.size_bytes,
        sha256: &part.sha256,
    };
    if inflow.received > 0 && inflow.received == part.size_bytes {
        return promise.check(inflow, WHAT);
    }
    let response = ask(transfer, url, inflow.received).await?;
    let from = inflow.received;
    match response.status() {
        StatusCode::OK if from == 0 => {}
        StatusCode::PARTIAL_CONTENT if is_rest(&response, from, part.size_bytes) => {}
        // It knows of no ranges, and sends all of it.
        StatusCode::OK => begin_anew(file, inflow, meter).await?,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => {
            begin_anew(file, inflow, meter).await?;
            let message = format!("{WHAT} has another size than was promised");
            return Err(Failure::Passing(Fault::new(FaultKind::BadImage, message)));
        }
        StatusCode::NOT_FOUND => return Err(Fault::new(FaultKind::BadImage, MISSING).into()),
        _ => return Err(refused(FETCHING, response).await),
    }
    receive_rest(response, file, &promise, WHAT, meter, inflow).await
}

async fn ask(transfer: &Transfer, url: &str, from: u64) -> Result<Response, Failure> {
    let mut request = transfer.fetch(url);
    if from > 0 {
        request = request.header(RANGE, format!("bytes={from}-"));
    }
    let response = request.send().await;
    response.map_err(|error| broken(FETCHING, error))
}

/// Whether the answer is what comes after `from`, of so many bytes.
fn is_rest(response: &Response, from: u64, size_bytes: u64) -> bool {
    let last = size_bytes.saturating_sub(1);
    let range = format!("bytes {from}-{last}/{size_bytes}");
    let given = response.headers().get(CONTENT_RANGE);
    given.is_some_and(|given| given.as_bytes() == range.as_bytes())
}

async fn begin_anew(file: &mut File, inflow: &mut Inflow, meter: &Meter) -> Result<(), Fault> {
    meter.moved_in_vain(inflow.received);
    *inflow = Inflow::default();
    file.set_len(0).await.map_err(storing)?;
    file.seek(SeekFrom::Start(0)).await.map_err(storing)?;
    Ok(())
}

fn storing(error: io::Error) -> Fault {
    Fault::io("storing the saved machine", &error)
}
