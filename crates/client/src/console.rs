//! A VM's serial console.

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};
use vimana_model::session::ConsoleHello;
use vimana_model::{Error, ErrorKind, Result, VmId};

use crate::transport::innermost;
use crate::{Client, limits};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An open serial line: bytes both ways.
pub struct Console {
    pub reader: ConsoleReader,
    pub writer: ConsoleWriter,
}

pub struct ConsoleReader(SplitStream<Socket>);

pub struct ConsoleWriter(SplitSink<Socket, Message>);

impl Client {
    /// Opens the serial console of a VM.
    ///
    /// # Errors
    /// With the server's words when the machine's line cannot be opened.
    pub async fn console(&self, id: VmId) -> Result<Console> {
        let ticket = self.console_ticket(id).await?;
        let open = self.open_console(&ticket.path, ticket.ticket);
        match tokio::time::timeout(limits::REQUEST_TIMEOUT, open).await {
            Ok(console) => console,
            Err(_) => Err(Error::unavailable("the console does not open in time")),
        }
    }

    async fn open_console(&self, path: &str, ticket: String) -> Result<Console> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(limits::MAX_CONSOLE_MESSAGE_BYTES))
            .max_frame_size(Some(limits::MAX_CONSOLE_MESSAGE_BYTES));
        let connector = Connector::Rustls(self.tls.clone());
        let url = self.base().websocket_of(path);
        let (socket, _) = connect_async_tls_with_config(url, Some(config), true, Some(connector))
            .await
            .map_err(|error| {
                let why = innermost(&error);
                Error::unavailable(format!("cannot open the console: {why}")).with_source(error)
            })?;
        let (mut sink, stream) = socket.split();
        let hello = serde_json::to_string(&ConsoleHello { ticket }).map_err(Error::internal)?;
        sink.send(Message::text(hello)).await.map_err(broken_off)?;
        let mut reader = ConsoleReader(stream);
        // The first message says that the machine's line is open.
        if reader.read().await?.is_none() {
            return Err(Error::unavailable("the console ended before it was open"));
        }
        Ok(Console {
            reader,
            writer: ConsoleWriter(sink),
        })
    }
}

impl ConsoleReader {
    /// What the guest wrote next; `None` after an ordinary end, such as when
    /// the machine went off.
    ///
    /// # Errors
    /// With the server's words when it refused or broke off the console.
    pub async fn read(&mut self) -> Result<Option<Bytes>> {
        while let Some(message) = self.0.next().await {
            match message.map_err(broken_off)? {
                Message::Binary(bytes) => return Ok(Some(bytes)),
                Message::Close(Some(frame)) if frame.code != CloseCode::Normal => {
                    return Err(Error::new(ErrorKind::Conflict, frame.reason.as_str()));
                }
                Message::Close(_) => return Ok(None),
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(None)
    }
}

impl ConsoleWriter {
    /// Types `bytes`.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0
            .send(Message::Binary(bytes))
            .await
            .map_err(broken_off)
    }

    /// Hangs up.
    pub async fn close(&mut self) -> Result<()> {
        self.0.close().await.map_err(broken_off)
    }
}

fn broken_off(error: tungstenite::Error) -> Error {
    Error::unavailable("the connection to the console broke off").with_source(error)
}
