//! Files from web servers.

use std::io;
use std::sync::Arc;

use futures::TryStreamExt as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG,
    HeaderMap, HeaderName, LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use tokio_util::io::StreamReader;
use url::{Host, Url};

use crate::limits::{CONNECT_TIMEOUT, MAX_REDIRECTS, SILENCE_TIMEOUT};
use crate::{FetchError, Mark, Opened, Reach, Scheme, Source};

pub async fn open(
    source: &Source,
    mark: Option<&Mark>,
    reach: &Reach,
) -> Result<Opened, FetchError> {
    let client = client(reach)?;
    let mark = mark.filter(|mark| mark.offset > 0 && mark.version.is_some());
    let answer = follow(&client, source, mark, reach).await?;
    let opened = read(answer)?;
    match mark {
        Some(mark) if opened.offset > 0 => {
            if opened.offset == mark.offset && opened.version == mark.version {
                return Ok(opened);
            }
            // Another file by now: from its beginning.
            read(follow(&client, source, None, reach).await?)
        }
        Some(_) | None => Ok(opened),
    }
}

/// A client for one file: names are looked up through `reach`, by every
/// connection anew, and nothing goes through a proxy, which would connect to
/// whatever it likes.
fn client(reach: &Reach) -> Result<Client, FetchError> {
    let built = Client::builder()
        .use_preconfigured_tls(tls()?)
        .dns_resolver(Arc::new(Guarded(reach.clone())))
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE_TIMEOUT)
        .user_agent(concat!("vimana/", env!("CARGO_PKG_VERSION")))
        .build();
    built.map_err(|error| FetchError::Broken(said(&error)))
}

fn tls() -> Result<rustls::ClientConfig, FetchError> {
    let broken = |error: &dyn std::error::Error| FetchError::Broken(said(error));
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(&error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

struct Guarded(Reach);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0.clone();
        Box::pin(async move {
            let host = Host::Domain(name.as_str());
            let found = reach.resolve(&host, 0).await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// Asks for the file, and again wherever the answer sends us, each time with
/// the same care.
async fn follow(
    client: &Client,
    source: &Source,
    mark: Option<&Mark>,
    reach: &Reach,
) -> Result<Response, FetchError> {
    let mut at = source.clone();
    for _ in 0..=MAX_REDIRECTS {
        // Connections to plain addresses do not ask the resolver.
        if let Host::Ipv4(_) | Host::Ipv6(_) = at.host() {
            reach.resolve(&at.host(), 0).await?;
        }
        let answer = ask(client, at.url().clone(), mark).await?;
        if let Some(peer) = answer.remote_addr() {
            reach.check(peer.ip())?;
        }
        if !answer.status().is_redirection() {
            return judge(answer, mark);
        }
        at = next(&at, &answer)?;
    }
    Err(FetchError::Broken(format!(
        "its server sends us on more than {MAX_REDIRECTS} times"
    )))
}

async fn ask(client: &Client, url: Url, mark: Option<&Mark>) -> Result<Response, FetchError> {
    let mut request = client.get(url).header(ACCEPT_ENCODING, "identity");
    if let Some(mark) = mark {
        request = request.header(RANGE, format!("bytes={}-", mark.offset));
    }
    request.send().await.map_err(|error| failure(&error))
}

/// Where an answer sends us.
fn next(at: &Source, answer: &Response) -> Result<Source, FetchError> {
    let to = text(answer.headers(), &LOCATION).unwrap_or_default();
    let refuse = |why: String| FetchError::Redirect {
        to: to
            .chars()
            .take(200)
            .flat_map(char::escape_default)
            .collect(),
        why,
    };
    let joined = at
        .url()
        .join(&to)
        .map_err(|error| refuse(error.to_string()))?;
    let next: Source = joined
        .as_str()
        .parse()
        .map_err(|error: crate::SourceError| refuse(error.to_string()))?;
    match (at.scheme(), next.scheme()) {
        (Scheme::Http, Scheme::Http | Scheme::Https) | (Scheme::Https, Scheme::Https) => Ok(next),
        (Scheme::Https, Scheme::Http) => Err(refuse("it leaves encryption".to_owned())),
        _ => Err(refuse("it is no web server's".to_owned())),
    }
}

/// What the status means for a file.
fn judge(answer: Response, mark: Option<&Mark>) -> Result<Response, FetchError> {
    let status = answer.status();
    match status {
        StatusCode::OK => Ok(answer),
        // Nobody asked for a part.
        StatusCode::PARTIAL_CONTENT if mark.is_some() => Ok(answer),
        StatusCode::RANGE_NOT_SATISFIABLE if mark.is_some() => Ok(answer),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(FetchError::NotFound),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(FetchError::Denied(format!("its server answers {status}")))
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(FetchError::Away(format!("its server answers {status}")))
        }
        _ if status.is_server_error() => {
            Err(FetchError::Away(format!("its server answers {status}")))
        }
        _ => Err(FetchError::Broken(format!("its server answers {status}"))),
    }
}

fn read(answer: Response) -> Result<Opened, FetchError> {
    let headers = answer.headers();
    if let Some(encoding) = text(headers, &CONTENT_ENCODING)
        && encoding != "identity"
    {
        let encoding: String = encoding.chars().take(40).collect();
        return Err(FetchError::Broken(format!(
            "its server packs it as `{encoding}`, which nobody asked for"
        )));
    }
    let length = text(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let version = version(headers);
    let (offset, total) = match answer.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = text(headers, &CONTENT_RANGE).unwrap_or_default();
            part(&range).ok_or_else(|| {
                FetchError::Broken("its server says not which part it sends".to_owned())
            })?
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            // All of it is here, or it is shorter by now: its length tells.
            let range = text(headers, &CONTENT_RANGE).unwrap_or_default();
            let total = range
                .strip_prefix("bytes */")
                .and_then(|total| total.parse().ok());
            return Ok(Opened {
                offset: total.unwrap_or_default(),
                total,
                version,
                body: Box::pin(tokio::io::empty()),
            });
        }
        _ => (0, length),
    };
    let body = answer.bytes_stream().map_err(|error| {
        let kind = if error.is_timeout() {
            io::ErrorKind::TimedOut
        } else {
            io::ErrorKind::ConnectionAborted
        };
        io::Error::new(kind, said(&error))
    });
    Ok(Opened {
        offset,
        total,
        version,
        body: Box::pin(StreamReader::new(body)),
    })
}

/// What tells this content from another. Only strong tags do; a server that
/// does not begin elsewhere needs none.
fn version(headers: &HeaderMap) -> Option<String> {
    if text(headers, &ACCEPT_RANGES).is_some_and(|ranges| ranges == "none") {
        return None;
    }
    let tag = text(headers, &ETAG).filter(|tag| !tag.starts_with("W/"));
    tag.or_else(|| text(headers, &LAST_MODIFIED))
}

/// `bytes 5-9/10` begins at 5 and is of 10.
fn part(range: &str) -> Option<(u64, Option<u64>)> {
    let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = span.split_once('-')?;
    let first = first.parse().ok()?;
    Some((first, total.parse().ok()))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.trim().to_owned())
}

/// What broke before there was an answer.
fn failure(error: &reqwest::Error) -> FetchError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(at) = cause {
        // Of ours, on its way through the library.
        if let Some(known) = at.downcast_ref::<FetchError>() {
            return known.clone();
        }
        cause = at.source();
    }
    if error.is_timeout() {
        return FetchError::silent();
    }
    if error.is_builder() {
        return FetchError::Broken(said(error));
    }
    FetchError::Away(said(error))
}

/// The innermost cause, which says most, without the URL, which may hold a
/// secret.
fn said(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string().chars().take(200).collect()
}
