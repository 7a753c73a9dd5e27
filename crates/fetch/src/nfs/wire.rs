//! The connection under the RPC library, with what it leaves to us: an end is
//! an error, and an answer has a limit.

use std::io;

use nfs3_client::io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::limits::MAX_NFS_REPLY_BYTES;

pub struct Wire {
    stream: TcpStream,
    /// What the answer that is being read may still bring.
    left: usize,
}

impl Wire {
    pub const fn new(stream: TcpStream) -> Self {
        Self { stream, left: 0 }
    }
}

impl AsyncRead for Wire {
    async fn async_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.len() > self.left {
            let message = "the answer is longer than what was asked for";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let count = self.stream.read(buf).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left = self.left.saturating_sub(count);
        Ok(count)
    }
}

impl AsyncWrite for Wire {
    async fn async_write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // Every call has one answer.
        self.left = MAX_NFS_REPLY_BYTES;
        self.stream.write(buf).await
    }
}
