//! Against real servers: nginx, pyftpdlib, NFS-Ganesha.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

mod ftp;
mod http;
mod nfs;
mod peer;
mod reach;

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio::io::AsyncReadExt as _;
use vimana_fetch::{FetchError, Mark, Opened, Reach, Source, open};

/// Bytes that are nowhere alike, so that a part in the wrong place is seen.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

/// This machine, which is out of reach unless one says so.
fn here() -> Reach {
    Reach::new(vec!["127.0.0.1/32".parse().unwrap()])
}

async fn opened(url: &str, mark: Option<&Mark>) -> Result<Opened, FetchError> {
    let source: Source = url.parse().unwrap();
    open(&source, mark, &here()).await
}

async fn whole(url: &str) -> Vec<u8> {
    let mut opened = opened(url, None).await.unwrap();
    assert_eq!(opened.offset, 0);
    let mut bytes = Vec::new();
    opened.body.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn refusal(url: &str) -> FetchError {
    opened(url, None).await.err().unwrap()
}

/// Reads a part, hangs up, goes on from there; then the file changes.
async fn a_broken_transfer_goes_on(url: &str, file: &Path) {
    let content = noise(5 << 20);
    std::fs::write(file, &content).unwrap();
    let mut first = opened(url, None).await.unwrap();
    assert_eq!(first.total, Some(5 << 20));
    let mut bytes = vec![0; 1_234_567];
    first.body.read_exact(&mut bytes).await.unwrap();
    let mark = Mark {
        offset: 1_234_567,
        version: first.version.clone(),
    };
    drop(first);
    let mut second = opened(url, Some(&mark)).await.unwrap();
    assert_eq!((second.offset, second.total), (mark.offset, Some(5 << 20)));
    second.body.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == content);

    // Another file is not gone on with, nor one that cannot be told apart.
    std::fs::write(file, b"another").unwrap();
    let nameless = Mark {
        version: None,
        offset: 3,
    };
    for mark in [&mark, &nameless] {
        let mut other = opened(url, Some(mark)).await.unwrap();
        assert_eq!(other.offset, 0);
        let mut bytes = Vec::new();
        other.body.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"another");
    }
}
