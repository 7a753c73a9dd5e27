use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use tokio::io::AsyncReadExt as _;
use vimana_fetch::FetchError;

use crate::peer::Peer;
use crate::{a_broken_transfer_goes_on, noise, opened, refusal, whole};

#[tokio::test]
async fn a_file_comes_whole_and_a_broken_transfer_goes_on() {
    let nginx = Peer::nginx("");
    let content = noise(3 << 20);
    std::fs::write(nginx.file("a b.img"), &content).unwrap();
    let base = format!("http://127.0.0.1:{}", nginx.port);
    assert!(whole(&format!("{base}/a%20b.img")).await == content);
    a_broken_transfer_goes_on(&format!("{base}/c.img"), &nginx.file("c.img")).await;
}

#[tokio::test]
async fn a_server_that_cannot_begin_elsewhere_begins_anew() {
    let nginx = Peer::nginx("max_ranges 0;");
    let content = noise(1 << 20);
    std::fs::write(nginx.file("a.img"), &content).unwrap();
    let url = format!("http://127.0.0.1:{}/a.img", nginx.port);
    let version = opened(&url, None).await.unwrap().version;
    let mark = vimana_fetch::Mark {
        offset: 1000,
        version,
    };
    let again = opened(&url, Some(&mark)).await.unwrap();
    assert_eq!((again.offset, again.total), (0, Some(1 << 20)));
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_they_may() {
    let nginx = Peer::nginx(
        "location /moved { return 301 /a.img; }
         location /round { return 302 /round; }
         location /out { return 302 http://127.0.0.2:9/a.img; }
         location /meta { return 307 http://169.254.169.254/latest/meta-data/; }
         location /name { return 302 http://localhost:9/; }
         location /file { return 302 file:///etc/passwd; }
         location /ftp { return 302 ftp://127.0.0.1/x; }
         location /away { return 503; }
         location /secret { return 403; }
         location /odd { return 418; }",
    );
    std::fs::write(nginx.file("a.img"), b"content").unwrap();
    let url = |path: &str| format!("http://127.0.0.1:{}/{path}", nginx.port);
    assert_eq!(whole(&url("moved")).await, b"content");
    assert!(matches!(
        refusal(&url("round")).await,
        FetchError::Broken(_)
    ));
    for path in ["out", "meta"] {
        assert!(
            matches!(refusal(&url(path)).await, FetchError::Forbidden(_)),
            "{path}"
        );
    }
    // Only 127.0.0.1 is allowed here; where `localhost` is that alone, nobody listens.
    let error = refusal(&url("name")).await;
    assert!(
        matches!(error, FetchError::Forbidden(_) | FetchError::Away(_)),
        "{error}"
    );
    for path in ["file", "ftp"] {
        assert!(
            matches!(refusal(&url(path)).await, FetchError::Redirect { .. }),
            "{path}"
        );
    }
    assert!(refusal(&url("away")).await.is_passing());
    assert!(matches!(
        refusal(&url("secret")).await,
        FetchError::Denied(_)
    ));
    assert!(matches!(refusal(&url("odd")).await, FetchError::Broken(_)));
    assert!(matches!(refusal(&url("none")).await, FetchError::NotFound));
}

/// Answers one request with these bytes, whatever was asked, and hangs up.
fn liar(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            asked.extend(byte);
        }
        stream.write_all(answer).unwrap();
    });
    format!("http://127.0.0.1:{port}/a.img")
}

#[tokio::test]
async fn a_file_that_is_cut_short_ends_with_an_error() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot a hundred"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut opened = opened(&liar(answer), None).await.unwrap();
        let mut bytes = Vec::new();
        assert!(opened.body.read_to_end(&mut bytes).await.is_err());
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_refused() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx"[..],
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n",
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let text = String::from_utf8_lossy(answer).into_owned();
        assert!(opened(&liar(answer), None).await.is_err(), "{text}");
    }
}
