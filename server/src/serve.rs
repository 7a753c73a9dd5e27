//! The listening sockets: one for people and programs, one for agents.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::middleware::AddExtension;
use axum::{Extension, Router};
use axum_server::accept::{Accept, NoDelayAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use axum_server::{Handle, Server};
use futures::future::BoxFuture;
use hyper_util::rt::TokioTimer;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use vimana_model::{Error, ErrorKind};
use vimana_pki::PeerIdentity;

use crate::api::problem::ApiError;
use crate::limits;
use crate::pace::Pace;

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

    /// Serves people and programs, in a task of its own.
    pub fn serve(self, router: Router, tls: Option<RustlsConfig>) -> Serving {
        self.spawn(async move |server| {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            match tls {
                Some(tls) => {
                    let encrypt = |plain| RustlsAcceptor::new(tls).acceptor(plain);
                    server.map(encrypt).serve(service).await
                }
                None => server.serve(service).await,
            }
        })
    }

    /// Serves agents, in a task of its own.
    pub fn serve_agents(self, router: Router, tls: ServerConfig) -> Serving {
        self.spawn(async move |server| {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            let tls = RustlsConfig::from_config(Arc::new(tls));
            let encrypt = |plain| AgentAcceptor {
                tls: RustlsAcceptor::new(tls).acceptor(plain),
                pace: Pace::of_half_the_processors(),
            };
            server.map(encrypt).serve(service).await
        })
    }

    fn spawn<F, S>(self, serve: F) -> Serving
    where
        F: FnOnce(Server<SocketAddr, NoDelayAcceptor>) -> S,
        S: Future<Output = io::Result<()>> + Send + 'static,
    {
        let Self { listener, address } = self;
        let handle = Handle::new();
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
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
        let serve = serve(server);
        let task = tokio::spawn(async move {
            let _end = end;
            serve.await
        });
        Serving {
            address,
            task,
            ended,
            handle,
        }
    }
}

/// TLS, and what it says of the agent's certificate, with every request.
#[derive(Clone)]
struct AgentAcceptor {
    tls: RustlsAcceptor<NoDelayAcceptor>,
    /// All hosts come at once when the server is back.
    pace: Pace,
}

type TlsStream = <RustlsAcceptor<NoDelayAcceptor> as Accept<TcpStream, ()>>::Stream;

impl<S: Send + 'static> Accept<TcpStream, S> for AgentAcceptor {
    type Stream = TlsStream;
    type Service = AddExtension<S, Shown>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accept = self.tls.accept(stream, service);
        let pace = self.pace.clone();
        Box::pin(async move {
            let (stream, service) = pace.keep(accept).await?;
            let (_, connection) = stream.get_ref();
            let certificate = connection.peer_certificates().and_then(<[_]>::first);
            let shown = Shown(certificate.map(|der| PeerIdentity::from_der(der).ok()));
            Ok((stream, Extension(shown).layer(service)))
        })
    }
}

/// The certificate of a connection's other end, verified: none, or not one of
/// a host.
#[derive(Clone, Copy)]
struct Shown(Option<Option<PeerIdentity>>);

/// The certificate that an agent shows. Whether it is good is for the engine
/// to say.
pub struct ShownCertificate(pub PeerIdentity);

impl<S: Send + Sync> FromRequestParts<S> for ShownCertificate {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let shown = parts.extensions.get::<Shown>();
        let why = match shown {
            Some(Shown(Some(Some(identity)))) => return Ok(Self(*identity)),
            Some(Shown(Some(None))) => "this certificate is not a host's",
            Some(Shown(None)) | None => "a host's certificate is needed here; join first",
        };
        Err(ApiError(Error::new(ErrorKind::Unauthenticated, why)))
    }
}
