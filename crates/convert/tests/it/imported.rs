//! The converter where it is used: images of other hypervisors are imported.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;

use tempfile::TempDir;
use vimana_fetch::Reach;
use vimana_format::Content;
use vimana_import::{Bounds, ImportError, Input, Job, Patience, Staged, Staging, import};

use crate::qemu_img;

/// Serves these bytes once, and says where.
fn served(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(&stream).lines();
        while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    format!("http://127.0.0.1:{port}/disk")
}

async fn imported(dir: &Path, bytes: Vec<u8>, max_bytes: u64) -> Result<Staged, ImportError> {
    let job = Job {
        input: Input::Remote {
            source: served(bytes).parse().unwrap(),
            reach: Reach::new(vec!["127.0.0.1/32".parse().unwrap()]),
        },
        checksum: None,
        converter: Some(env!("CARGO_BIN_EXE_vimana-convert").into()),
        declared: None,
        bounds: Bounds {
            max_bytes,
            max_virtual_bytes: 1 << 30,
            bytes_per_second: None,
        },
        patience: Patience::default(),
    };
    import(&job, &Staging::new(dir.join("staging")), |_| ()).await
}

/// A disk of 16 MiB, in that format.
fn disk(dir: &Path, format: &str) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..1_u32 << 20)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    bytes.resize(16 << 20, 0);
    fs::write(dir.join("raw"), bytes).unwrap();
    qemu_img(dir, &["convert", "-f", "raw", "-O", format, "raw", "other"]);
    fs::read(dir.join("other")).unwrap()
}

#[tokio::test]
async fn images_of_others_are_qcow2_once_they_are_here() {
    for format in ["vmdk", "vdi", "vhdx"] {
        let dir = TempDir::new().unwrap();
        let bytes = disk(dir.path(), format);
        let fetched = bytes.len() as u64;
        let staged = imported(dir.path(), bytes, 64 << 20).await.unwrap();
        assert_eq!(
            (staged.content, staged.fetched_bytes),
            (Content::Qcow2, fetched)
        );
        assert_eq!(staged.virtual_bytes, 16 << 20, "{format}");
        assert_eq!(staged.size_bytes, fs::metadata(&staged.path).unwrap().len());
        fs::rename(&staged.path, dir.path().join("here")).unwrap();
        qemu_img(
            dir.path(),
            &["compare", "-f", "raw", "-F", "qcow2", "raw", "here"],
        );
    }
}

#[tokio::test]
async fn what_the_converter_cannot_read_is_refused_in_words() {
    let dir = TempDir::new().unwrap();
    let mut bytes = disk(dir.path(), "vhdx");
    // Both region tables have another checksum than they say.
    for table in [192 << 10, 256 << 10] {
        *bytes.get_mut(table + 12).unwrap() ^= 1;
    }
    let error = imported(dir.path(), bytes, 64 << 20).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, ImportError::Converted(_)), "{said}");
    let shown = dir.path().to_string_lossy();
    assert!(!said.contains(&*shown), "{said}");
}
