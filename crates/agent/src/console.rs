//! Serial consoles: each is a connection of its own, joined to the machine's
//! serial line until either side ends.

use std::sync::Arc;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::Semaphore;
use tokio::time::{interval, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_util::sync::CancellationToken;
use vimana_driver::{HostDriver, SerialStream};
use vimana_model::{ConsoleId, VmId};
use vimana_protocol::dial::{Server, Socket};

use crate::limits::{
    CONSOLE_PING_EVERY, CONSOLE_READ_BYTES, CONSOLE_TIMEOUT, MAX_CONSOLE_FRAME_BYTES, MAX_CONSOLES,
};
use crate::tasks::Spawner;

/// Longest reason a close frame can carry.
const MAX_REASON_BYTES: usize = 123;

/// All consoles on this host.
pub struct Consoles {
    server: Server,
    driver: Arc<dyn HostDriver>,
    free: Semaphore,
    tasks: Spawner,
    stop: CancellationToken,
}

/// How a console ended, for the viewer.
struct End {
    code: CloseCode,
    reason: String,
}

impl End {
    fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }
}

impl Consoles {
    pub fn new(
        server: Server,
        driver: Arc<dyn HostDriver>,
        tasks: Spawner,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            server,
            driver,
            free: Semaphore::new(MAX_CONSOLES),
            tasks,
            stop,
        })
    }

    /// Dials back for one viewer and serves it in the background.
    pub fn open(self: &Arc<Self>, console_id: ConsoleId, vm_id: VmId) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            this.stop
                .run_until_cancelled(this.serve(console_id, vm_id))
                .await;
        });
    }

    async fn serve(&self, console_id: ConsoleId, vm_id: VmId) {
        let path = format!("/agent/v1/console/{console_id}");
        let socket = match self.server.open(&path, MAX_CONSOLE_FRAME_BYTES).await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%console_id, %vm_id, %error, "a console could not be connected");
                return;
            }
        };
        tracing::debug!(%console_id, %vm_id, "a console opened");
        let (mut sink, stream) = socket.split();
        let end = self.join(vm_id, &mut sink, stream).await;
        tracing::debug!(%console_id, %vm_id, reason = end.reason, "a console ended");
        let reason = end
            .reason
            .get(..end.reason.floor_char_boundary(MAX_REASON_BYTES));
        let frame = CloseFrame {
            code: end.code,
            reason: reason.unwrap_or_default().into(),
        };
        // A viewer that is gone needs no farewell.
        let _ = timeout(CONSOLE_PING_EVERY, sink.send(Message::Close(Some(frame)))).await;
    }

    async fn join(
        &self,
        vm_id: VmId,
        sink: &mut SplitSink<Socket, Message>,
        stream: SplitStream<Socket>,
    ) -> End {
        let Ok(_place) = self.free.try_acquire() else {
            let reason = format!("{MAX_CONSOLES} consoles are open on this host");
            return End::new(CloseCode::Again, reason);
        };
        let line = match self.driver.serial(vm_id).await {
            Ok(line) => line,
            Err(fault) => return End::new(CloseCode::Error, fault.message),
        };
        let (output, input) = tokio::io::split(line);
        tokio::select! {
            biased;
            end = show(output, sink) => end,
            end = enter(stream, input) => end,
        }
    }
}

/// Machine to viewer. What the viewer does not take, the machine's line keeps:
/// nothing piles up here.
async fn show(
    mut output: ReadHalf<Box<dyn SerialStream>>,
    sink: &mut SplitSink<Socket, Message>,
) -> End {
    let mut buffer = vec![0; CONSOLE_READ_BYTES];
    let mut ping = interval(CONSOLE_PING_EVERY);
    loop {
        let message = tokio::select! {
            biased;
            read = output.read(&mut buffer) => match read {
                Ok(0) => return End::new(CloseCode::Normal, "the machine's serial line ended"),
                Ok(n) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    Message::Binary(bytes.to_vec().into())
                }
                Err(error) => {
                    tracing::debug!(%error, "a serial line broke");
                    return End::new(CloseCode::Error, "the machine's serial line broke");
                }
            },
            _ = ping.tick() => Message::Ping(Vec::new().into()),
        };
        if !matches!(
            timeout(CONSOLE_TIMEOUT, sink.send(message)).await,
            Ok(Ok(()))
        ) {
            return End::new(CloseCode::Away, "the viewer takes no more output");
        }
    }
}

/// Viewer to machine.
async fn enter(
    mut stream: SplitStream<Socket>,
    mut input: WriteHalf<Box<dyn SerialStream>>,
) -> End {
    loop {
        let message = match timeout(CONSOLE_TIMEOUT, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(None) => return End::new(CloseCode::Normal, "the viewer left"),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "a console's connection broke");
                return End::new(CloseCode::Away, "the connection broke");
            }
            Err(_) => return End::new(CloseCode::Away, "the viewer is silent"),
        };
        match message {
            Message::Binary(bytes) => {
                let written = async {
                    input.write_all(&bytes).await?;
                    input.flush().await
                };
                if !matches!(timeout(CONSOLE_TIMEOUT, written).await, Ok(Ok(()))) {
                    return End::new(CloseCode::Error, "the machine takes no more input");
                }
            }
            Message::Text(_) => {
                return End::new(CloseCode::Unsupported, "a console takes binary frames");
            }
            Message::Close(_) => return End::new(CloseCode::Normal, "the viewer left"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}
