use std::os::unix::fs::{PermissionsExt as _, symlink};

use vimana_fetch::FetchError;

use crate::peer::Peer;
use crate::{a_broken_transfer_goes_on, noise, refusal, whole};

#[tokio::test]
async fn files_of_a_share_are_read_as_nobody() {
    let nfs = Peer::nfs();
    let content = noise(3 << 20);
    std::fs::create_dir(nfs.file("sub")).unwrap();
    std::fs::write(nfs.file("sub/a.img"), &content).unwrap();
    std::fs::write(nfs.file("private.img"), b"secret").unwrap();
    let only_its_owner = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(nfs.file("private.img"), only_its_owner).unwrap();
    symlink("/etc/passwd", nfs.file("link.img")).unwrap();

    let base = format!("nfs://127.0.0.1{}", nfs.files().display());
    assert!(whole(&format!("{base}/sub/a.img")).await == content);
    let error = refusal(&format!("{base}/none.img")).await;
    assert!(matches!(error, FetchError::NotFound), "{error}");
    let error = refusal(&format!("{base}/sub/a.img/b")).await;
    assert!(matches!(error, FetchError::NotFound), "{error}");
    // Root may read it, and root this test is; we do not come as root.
    let mut opened = crate::opened(&format!("{base}/private.img"), None).await;
    if let Ok(opened) = &mut opened {
        use tokio::io::AsyncReadExt as _;
        let mut bytes = Vec::new();
        let error = opened.body.read_to_end(&mut bytes).await.unwrap_err();
        assert!(error.to_string().contains("nobody"), "{error}");
    }
    for name in ["link.img", "sub"] {
        let error = refusal(&format!("{base}/{name}")).await;
        assert!(matches!(error, FetchError::Broken(_)), "{name}: {error}");
    }
    let error = refusal("nfs://127.0.0.1/etc/passwd").await;
    let refused = matches!(error, FetchError::NotFound | FetchError::Denied(_));
    assert!(refused, "{error}");
    a_broken_transfer_goes_on(&format!("{base}/b.img"), &nfs.file("b.img")).await;
}
