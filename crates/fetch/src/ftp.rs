//! Files from FTP servers, in passive mode alone.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures::stream::try_unfold;
use suppaftp::Status;
use suppaftp::tokio::{AsyncFtpStream, AsyncNoTlsStream, TransferStream};
use suppaftp::types::{FileType, FtpError, Mode};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::io::StreamReader;

use crate::limits::{CONNECT_TIMEOUT, SILENCE_TIMEOUT};
use crate::{FetchError, Mark, Opened, Reach, Source, begin};

const PORT: u16 = 21;
const BUFFER_BYTES: usize = 256 << 10;

pub async fn open(
    source: &Source,
    mark: Option<&Mark>,
    reach: &Reach,
) -> Result<Opened, FetchError> {
    let port = source.url().port().unwrap_or(PORT);
    let addresses = reach.resolve(&source.host(), port).await?;
    let (mut session, peer) = connect(&addresses).await?;
    // The address in a server's answer to PASV is not looked at: the data
    // comes from where the commands go, or not at all.
    session.set_passive_nat_workaround(true);
    session.set_mode(if peer.is_ipv6() {
        Mode::ExtendedPassive
    } else {
        Mode::Passive
    });
    let (user, password) = source
        .credentials()
        .unwrap_or_else(|| ("anonymous".to_owned(), "vimana@".to_owned()));
    in_time(session.login(&user, &password)).await?;
    in_time(session.transfer_type(FileType::Binary)).await?;
    let path = source.path().join("/");
    // Neither is known to every server.
    let total = known(in_time(session.size(&path)).await)?;
    let total = total.and_then(|total| u64::try_from(total).ok());
    let changed = known(in_time(session.mdtm(&path)).await)?;
    let version = changed
        .zip(total)
        .map(|(changed, total)| format!("{changed} {total}"));
    let mut offset = begin(mark, version.as_deref(), total);
    let place = usize::try_from(offset).unwrap_or_default();
    if place > 0 && in_time(session.resume_transfer(place)).await.is_err() {
        offset = 0;
    }
    let transfer = in_time(session.retr_as_stream(&path)).await?;
    let pieces = try_unfold(Some((session, transfer)), next);
    Ok(Opened {
        offset,
        total,
        version,
        body: Box::pin(StreamReader::new(Box::pin(pieces))),
    })
}

/// The first of a host's addresses that answers.
async fn connect(addresses: &[SocketAddr]) -> Result<(AsyncFtpStream, SocketAddr), FetchError> {
    let mut last = FetchError::silent();
    for address in addresses {
        let connected = async {
            let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
            let stream = stream.map_err(|_| FetchError::silent())?;
            let stream = stream.map_err(|error| FetchError::Away(error.to_string()))?;
            in_time(AsyncFtpStream::connect_with_stream(stream)).await
        };
        match connected.await {
            Ok(session) => return Ok((session, *address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

type Transfer = (AsyncFtpStream, TransferStream<AsyncNoTlsStream>);

/// The next piece. A connection that ends is the end of the file only when the
/// server says so.
async fn next(at: Option<Transfer>) -> io::Result<Option<(Bytes, Option<Transfer>)>> {
    let Some((session, mut transfer)) = at else {
        return Ok(None);
    };
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    let read = timeout(SILENCE_TIMEOUT, transfer.read_buf(&mut buffer)).await;
    if read.map_err(|_| io::ErrorKind::TimedOut)?? > 0 {
        return Ok(Some((buffer.freeze(), Some((session, transfer)))));
    }
    let ended = timeout(SILENCE_TIMEOUT, transfer.finish()).await;
    match ended.map_err(|_| io::ErrorKind::TimedOut)? {
        Ok(()) => Ok(None),
        Err(error) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, said(&error))),
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, FtpError>>) -> Result<T, FetchError> {
    let answered = timeout(SILENCE_TIMEOUT, call).await;
    answered
        .map_err(|_| FetchError::silent())?
        .map_err(|error| failure(&error))
}

/// What a server does not know is not known; everything else is a failure.
fn known<T>(asked: Result<T, FetchError>) -> Result<Option<T>, FetchError> {
    match asked {
        Ok(told) => Ok(Some(told)),
        Err(error @ FetchError::Away(_)) => Err(error),
        Err(_) => Ok(None),
    }
}

fn failure(error: &FtpError) -> FetchError {
    let FtpError::UnexpectedResponse(answer) = error else {
        return match error {
            FtpError::ConnectionError(_) => FetchError::Away(said(error)),
            _ => FetchError::Broken(said(error)),
        };
    };
    match answer.status {
        Status::NotLoggedIn => FetchError::Denied(said(error)),
        Status::FileUnavailable => FetchError::NotFound,
        status if (400..500).contains(&status.code()) => FetchError::Away(said(error)),
        _ => FetchError::Broken(said(error)),
    }
}

/// A server's own words are shown, but not believed to be tidy.
fn said(error: &FtpError) -> String {
    let text = match error {
        FtpError::UnexpectedResponse(answer) => {
            format!(
                "its server answers `{}`",
                String::from_utf8_lossy(&answer.body).trim()
            )
        }
        _ => error.to_string(),
    };
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(200)
        .collect()
}
