//! The server's datastore, which breaks connections off where it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};

use super::Shared;

type Place = (String, u64, String);

/// What is in it, what went, and how it misbehaves.
#[derive(Default)]
pub struct Saved {
    pub parts: BTreeMap<String, Vec<u8>>,
    /// What has come of others.
    pub staged: BTreeMap<String, Vec<u8>>,
    /// The next requests are answered so.
    pub answers: VecDeque<(StatusCode, &'static str)>,
    /// What the next uploads are said to be.
    pub lies: VecDeque<&'static [u8]>,
    pub requests: u32,
    /// The next bodies break off after so many bytes.
    pub cuts: VecDeque<usize>,
    /// Of each body: where in its part it began, and how much of it went.
    pub moved: Vec<(u64, u64)>,
    /// It knows nothing of offsets.
    pub is_old: bool,
}

impl Saved {
    /// Bytes of bodies that went since this was last asked.
    pub fn take_moved(&mut self) -> u64 {
        self.moved.drain(..).map(|(_, bytes)| bytes).sum()
    }
}

pub async fn received(
    State(shared): State<Arc<Shared>>,
    Path((vm, epoch, part)): Path<Place>,
) -> Response {
    let saved = shared.saved.lock().unwrap();
    if saved.is_old {
        return StatusCode::NOT_FOUND.into_response();
    }
    let place = format!("{vm}/{epoch}/{part}");
    let staged = saved.staged.get(&place).map(|bytes| (bytes, false));
    let whole = saved.parts.get(&place).map(|bytes| (bytes, true));
    let nothing = Vec::new();
    let (bytes, whole) = staged.or(whole).unwrap_or((&nothing, false));
    let (size, digest) = (bytes.len(), sha256(bytes));
    format!(r#"{{"size_bytes":{size},"sha256":"{digest}","whole":{whole}}}"#).into_response()
}

pub async fn upload(
    State(shared): State<Arc<Shared>>,
    Path((vm, epoch, part)): Path<Place>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let place = format!("{vm}/{epoch}/{part}");
    let (mut bytes, cut) = {
        let mut saved = shared.saved.lock().unwrap();
        saved.requests += 1;
        if let Some(answer) = saved.answers.pop_front() {
            return answer.into_response();
        }
        let staged = saved.staged.remove(&place).unwrap_or_default();
        let bytes = match headers.get("upload-offset") {
            Some(_) if saved.is_old => panic!("an old server was sent an offset"),
            Some(offset) => {
                let offset: usize = offset.to_str().unwrap().parse().unwrap();
                assert_eq!(offset, staged.len());
                staged
            }
            None => Vec::new(),
        };
        (bytes, saved.cuts.pop_front().unwrap_or(usize::MAX))
    };
    let from = bytes.len();
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        let left = cut - (bytes.len() - from);
        bytes.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if chunk.len() >= left {
            break;
        }
    }
    let went = bytes.len() - from;
    let mut saved = shared.saved.lock().unwrap();
    saved.moved.push((from as u64, went as u64));
    if went == cut {
        saved.staged.insert(place, bytes);
        return broken(Bytes::new());
    }
    let kept = saved.lies.pop_front().map_or(bytes, <[u8]>::to_vec);
    let (size, digest) = (kept.len(), sha256(&kept));
    saved.parts.insert(place, kept);
    format!(r#"{{"size_bytes":{size},"sha256":"{digest}"}}"#).into_response()
}

pub async fn download(
    State(shared): State<Arc<Shared>>,
    Path((vm, epoch, part)): Path<Place>,
    headers: HeaderMap,
) -> Response {
    let mut saved = shared.saved.lock().unwrap();
    saved.requests += 1;
    if let Some(answer) = saved.answers.pop_front() {
        return answer.into_response();
    }
    let Some(bytes) = saved.parts.get(&format!("{vm}/{epoch}/{part}")).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let asked = headers.get("range").filter(|_| !saved.is_old);
    let (status, from) = match asked {
        Some(range) => {
            let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
            let from = range.strip_suffix('-').unwrap().parse().unwrap();
            (StatusCode::PARTIAL_CONTENT, from)
        }
        None => (StatusCode::OK, 0),
    };
    if from >= bytes.len() && from > 0 {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
    let range = asked.map(|_| [("content-range", range)]);
    let rest = Bytes::from(bytes).slice(from..);
    let cut = saved.cuts.pop_front().filter(|cut| *cut < rest.len());
    let went = cut.unwrap_or(rest.len());
    saved.moved.push((from as u64, went as u64));
    let length = [("content-length", rest.len())];
    let body = match cut {
        Some(cut) => broken(rest.slice(..cut)),
        None => rest.into_response(),
    };
    (
        status,
        length.map(|(k, v)| (k, v.to_string())),
        range,
        body.into_body(),
    )
        .into_response()
}

/// So much of a body, and then the connection's end.
fn broken(bytes: Bytes) -> Response {
    // Left time to leave: what is still in a buffer goes with the connection.
    let end = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        Err(io::Error::other("cut off"))
    };
    let body = stream::iter([Ok(bytes)]).chain(stream::once(end));
    Body::from_stream(body).into_response()
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
