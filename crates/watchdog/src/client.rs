//! A blocking client, for who has one thing to say.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::SOCKET;
use crate::limits::ANSWER_TIMEOUT;
use crate::protocol::{FRAME_BYTES, Message, Request, State, VERSION};

/// A connection to a data directory's watchdog.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

/// The socket's path by way of an open directory, and the directory, which
/// has to stay open meanwhile: a socket's own path may be too long to name.
///
/// # Errors
/// Where the directory cannot be opened.
pub fn socket_in(data_dir: &Path) -> io::Result<(File, PathBuf)> {
    let dir = File::open(data_dir)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    Ok((dir, path.into()))
}

impl Client {
    /// Connects; says what the watchdog's state is.
    ///
    /// # Errors
    /// Where none runs ([`io::ErrorKind::NotFound`] or
    /// [`io::ErrorKind::ConnectionRefused`]), or it speaks another version.
    pub fn connect(data_dir: &Path) -> io::Result<(Self, State)> {
        let (_dir, path) = socket_in(data_dir)?;
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(&[VERSION])?;
        let mut version = [0];
        stream.read_exact(&mut version)?;
        if version != [VERSION] {
            let [version] = version;
            let text = format!("the watchdog speaks version {version}, not {VERSION}");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let mut client = Self { stream };
        let state = client.state()?;
        Ok((client, state))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Where the watchdog does not answer.
    pub fn ask(&mut self, request: Request) -> io::Result<State> {
        self.stream.write_all(&request.encode())?;
        self.state()
    }

    /// Waits for what the watchdog says next.
    ///
    /// # Errors
    /// Where it says nothing in time, or is gone.
    pub fn hear(&mut self) -> io::Result<Message> {
        let mut frame = [0; FRAME_BYTES];
        self.stream.read_exact(&mut frame)?;
        Message::decode(frame).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the watchdog talks nonsense")
        })
    }

    fn state(&mut self) -> io::Result<State> {
        loop {
            match self.hear()? {
                Message::State(state) => return Ok(state),
                Message::Alarm { .. } => {}
            }
        }
    }

    /// Has the watchdog end, and waits until it is gone.
    ///
    /// # Errors
    /// Where it does not go.
    pub fn end(mut self) -> io::Result<()> {
        self.stream.write_all(&Request::End.encode())?;
        // The answer, and then the end of the connection.
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}
