//! The listening socket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Requests in flight get this long once the server is asked to stop.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// A socket that is bound and not served yet.
pub struct Bound {
    listener: TcpListener,
    pub address: SocketAddr,
}

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

impl Bound {
    pub fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let bind = || -> io::Result<Self> {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind().with_context(|| format!("cannot listen on {address}"))
    }

    /// Serves in a task of its own.
    pub fn serve(self, router: Router, tls: Option<RustlsConfig>) -> Serving {
        let Self { listener, address } = self;
        let handle = Handle::new();
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let mut server = Server::from_listener(listener)
            .handle(handle.clone())
            .acceptor(NoDelayAcceptor::new());
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
                    let encrypt = |plain| RustlsAcceptor::new(tls).acceptor(plain);
                    server.map(encrypt).serve(service).await
                }
                None => server.serve(service).await,
            }
        });
        Serving {
            address,
            task,
            ended,
            handle,
        }
    }
}
