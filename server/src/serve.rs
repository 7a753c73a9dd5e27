//! The listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Requests in flight get this long once the server is asked to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// A socket being served.
pub struct Serving {
    pub address: SocketAddr,
    pub task: JoinHandle<io::Result<()>>,
    /// Cancelled when serving ends, whatever the reason.
    pub ended: CancellationToken,
    handle: Handle<SocketAddr>,
}

impl Serving {
    pub fn stop(&self) {
        self.handle.graceful_shutdown(Some(LAST_REQUESTS));
    }
}

/// Listens at `address` and serves in a task of its own.
pub async fn serve(
    router: Router,
    address: SocketAddr,
    tls: Option<RustlsConfig>,
) -> anyhow::Result<Serving> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let handle = Handle::new();
    let ended = CancellationToken::new();
    let end = ended.clone().drop_guard();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let mut server = axum_server::from_tcp(listener)?.handle(handle.clone());
    // Without a timer a connection may take for ever to send a request's head.
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEAD_TIMEOUT);
    server.http_builder().http2().timer(TokioTimer::new());
    let task = tokio::spawn(async move {
        let _end = end;
        match tls {
            Some(tls) => {
                let acceptor = axum_server::tls_rustls::RustlsAcceptor::new(tls)
                    .acceptor(NoDelayAcceptor::new());
                server.acceptor(acceptor).serve(service).await
            }
            None => server.acceptor(NoDelayAcceptor::new()).serve(service).await,
        }
    });
    Ok(Serving {
        address,
        task,
        ended,
        handle,
    })
}
