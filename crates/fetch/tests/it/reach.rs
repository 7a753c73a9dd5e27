//! Nobody is talked to who may not be.

use std::net::TcpListener;

use vimana_fetch::{FetchError, Reach, Source, open};

#[tokio::test]
async fn no_connection_is_made_to_what_is_out_of_reach() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    for scheme in ["http", "https", "ftp", "nfs"] {
        for host in [
            "127.0.0.1",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "localhost",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "169.254.169.254",
            "[fe80::1]",
            "10.0.0.1",
            "0.0.0.0",
        ] {
            let url = format!("{scheme}://{host}:{port}/share/a.img?mountport={port}");
            let source: Source = url.parse().unwrap();
            let error = open(&source, None, &Reach::default()).await.err().unwrap();
            assert!(matches!(error, FetchError::Forbidden(_)), "{url}: {error}");
        }
    }
    let nobody = listener.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}
