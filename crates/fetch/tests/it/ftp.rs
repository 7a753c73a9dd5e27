use tokio::io::AsyncReadExt as _;
use vimana_fetch::FetchError;

use crate::peer::Peer;
use crate::{a_broken_transfer_goes_on, noise, opened, refusal, whole};

#[tokio::test]
async fn a_file_comes_whole_and_a_broken_transfer_goes_on() {
    // It says that the data is at 10.255.255.1; nobody asks there.
    let ftp = Peer::ftp(&[]);
    let content = noise(3 << 20);
    std::fs::create_dir(ftp.file("sub dir")).unwrap();
    std::fs::write(ftp.file("sub dir/a.img"), &content).unwrap();
    let base = format!("ftp://127.0.0.1:{}", ftp.port);
    assert!(whole(&format!("{base}/sub%20dir/a.img")).await == content);
    assert!(matches!(
        refusal(&format!("{base}/none.img")).await,
        FetchError::NotFound
    ));
    a_broken_transfer_goes_on(&format!("{base}/b.img"), &ftp.file("b.img")).await;
}

#[tokio::test]
async fn a_password_is_asked_for_and_not_shown() {
    let ftp = Peer::ftp(&["-u", "ann", "-P", "hunter2"]);
    std::fs::write(ftp.file("a.img"), b"content").unwrap();
    let port = ftp.port;
    assert_eq!(
        whole(&format!("ftp://ann:hunter2@127.0.0.1:{port}/a.img")).await,
        b"content"
    );
    let error = refusal(&format!("ftp://ann:hunter3@127.0.0.1:{port}/a.img")).await;
    assert!(matches!(error, FetchError::Denied(_)), "{error}");
    assert!(!error.to_string().contains("hunter"));
}

#[tokio::test]
async fn a_file_that_is_cut_short_ends_with_an_error() {
    let mut ftp = Peer::ftp(&[]);
    std::fs::write(ftp.file("a.img"), noise(64 << 20)).unwrap();
    let url = format!("ftp://127.0.0.1:{}/a.img", ftp.port);
    let mut opened = opened(&url, None).await.unwrap();
    let mut start = vec![0; 1 << 20];
    opened.body.read_exact(&mut start).await.unwrap();
    ftp.kill();
    let rest = opened.body.read_to_end(&mut start).await;
    assert!(rest.is_err());
}
