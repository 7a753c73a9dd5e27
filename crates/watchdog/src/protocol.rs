//! What is said over the socket.
//!
//! Either end's first byte is the version it speaks. Then the agent sends
//! requests; the watchdog sends its state, once at the beginning and once for
//! each request, and an alarm when it begins to stop machines. All of these are
//! frames of [`FRAME_BYTES`]: what it is, and a time.
//!
//! A watchdog runs on while agents come, go and are upgraded, so that an agent
//! has to understand every version that may still be running.

use crate::BootTime;

/// The version this build speaks.
pub const VERSION: u8 = 1;
/// A request or a state.
pub const FRAME_BYTES: usize = 9;

pub type Frame = [u8; FRAME_BYTES];

/// Agent to watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The lease holds until then. What was granted before is not taken back
    /// by it.
    Lease { until: BootTime },
    /// There is no lease; the machines run on, whatever happens.
    Disarm,
    /// The same, and no watchdog is needed any more.
    End,
}

/// Watchdog to agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The beginning, or the answer to a request.
    State(State),
    /// Nobody asked: the lease was over at that time.
    Alarm { at: BootTime },
}

/// What a watchdog is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing will happen.
    Disarmed,
    /// The machines are stopped then.
    Armed { until: BootTime },
    /// The lease was over at that time. No machine may run until there is
    /// another, or none is needed any more.
    Fenced { at: BootTime },
}

impl Request {
    #[must_use]
    pub fn encode(self) -> Frame {
        match self {
            Self::Lease { until } => frame(b'L', until.as_ms()),
            Self::Disarm => frame(b'D', 0),
            Self::End => frame(b'E', 0),
        }
    }

    /// `None` where it is no request of this version.
    #[must_use]
    pub fn decode(frame: Frame) -> Option<Self> {
        let (kind, ms) = parts(frame);
        match (kind, ms) {
            (b'L', ms) => Some(Self::Lease {
                until: BootTime::from_ms(ms),
            }),
            (b'D', 0) => Some(Self::Disarm),
            (b'E', 0) => Some(Self::End),
            _ => None,
        }
    }
}

impl Message {
    #[must_use]
    pub fn encode(self) -> Frame {
        match self {
            Self::State(State::Disarmed) => frame(b'd', 0),
            Self::State(State::Armed { until }) => frame(b'a', until.as_ms()),
            Self::State(State::Fenced { at }) => frame(b'f', at.as_ms()),
            Self::Alarm { at } => frame(b'!', at.as_ms()),
        }
    }

    /// `None` where it is no message of this version.
    #[must_use]
    pub fn decode(frame: Frame) -> Option<Self> {
        let (kind, ms) = parts(frame);
        let time = BootTime::from_ms(ms);
        match kind {
            b'd' if ms == 0 => Some(Self::State(State::Disarmed)),
            b'a' => Some(Self::State(State::Armed { until: time })),
            b'f' => Some(Self::State(State::Fenced { at: time })),
            b'!' => Some(Self::Alarm { at: time }),
            _ => None,
        }
    }
}

fn frame(kind: u8, ms: u64) -> Frame {
    let [a, b, c, d, e, f, g, h] = ms.to_be_bytes();
    [kind, a, b, c, d, e, f, g, h]
}

fn parts([kind, ms @ ..]: Frame) -> (u8, u64) {
    (kind, u64::from_be_bytes(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        let time = BootTime::from_ms(0x0102_0304_0506_0708);
        let requests = [
            Request::Lease { until: time },
            Request::Disarm,
            Request::End,
        ];
        for request in requests {
            assert_eq!(Request::decode(request.encode()), Some(request));
            assert_eq!(Message::decode(request.encode()), None);
        }
        let messages = [
            Message::State(State::Disarmed),
            Message::State(State::Armed { until: time }),
            Message::State(State::Fenced { at: time }),
            Message::Alarm { at: time },
        ];
        for message in messages {
            assert_eq!(Message::decode(message.encode()), Some(message));
            assert_eq!(Request::decode(message.encode()), None);
        }
    }

    #[test]
    fn what_must_not_change_within_a_version_has_not() {
        let until = BootTime::from_ms(258);
        let lease = Request::Lease { until }.encode();
        assert_eq!(lease, [b'L', 0, 0, 0, 0, 0, 0, 1, 2]);
        let armed = Message::State(State::Armed { until }).encode();
        assert_eq!(armed, [b'a', 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
