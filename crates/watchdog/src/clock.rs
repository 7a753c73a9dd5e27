//! Time since the host's start, and an alarm on it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use serde::{Deserialize, Serialize};

/// Milliseconds since the host's start, those it slept included. Nobody can
/// set this clock, and all processes of the host agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootTime(u64);

impl BootTime {
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(now.tv_nsec).unwrap_or_default();
        Self(
            seconds
                .saturating_mul(1000)
                .saturating_add(nanos / 1_000_000),
        )
    }

    #[must_use]
    pub fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    #[must_use]
    pub fn as_ms(self) -> u64 {
        self.0
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(ms))
    }

    /// From here to `later`; nothing where that is over.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

impl fmt::Display for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1000, self.0 % 1000)
    }
}

/// Readable once its time has come. Unlike the timeout of `poll`, it does not
/// stand still while the host sleeps.
pub struct Alarm(OwnedFd);

impl Alarm {
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Boottime, flags)?))
    }

    /// Rings at `time` and at no other; at once if that is over, never if
    /// there is none.
    pub fn set(&self, time: Option<BootTime>) -> io::Result<()> {
        // All zero switches it off; hence at least a nanosecond.
        let value = time.map_or_else(Timespec::default, |time| Timespec {
            tv_sec: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(time.0 % 1000)
                .unwrap_or_default()
                .saturating_mul(1_000_000)
                .max(1),
        });
        let timer = Itimerspec {
            it_interval: Timespec::default(),
            it_value: value,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &timer)?;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn rings(alarm: &Alarm, patience: Duration) -> bool {
        let patience = Timespec::try_from(patience).unwrap();
        poll(&mut [PollFd::new(alarm, PollFlags::IN)], Some(&patience)).unwrap() == 1
    }

    #[test]
    fn time_goes_on_and_never_overflows() {
        let now = BootTime::now();
        assert!(now > BootTime::from_ms(0));
        let far = now.plus(Duration::MAX);
        assert_eq!(far.as_ms(), u64::MAX);
        assert_eq!(far.until(now), Duration::ZERO);
        assert_eq!(BootTime::from_ms(12_034).to_string(), "12.034 s");
    }

    #[test]
    fn alarm_rings_at_its_time_only() {
        let alarm = Alarm::new().unwrap();
        assert!(!rings(&alarm, Duration::ZERO));
        let time = BootTime::now().plus(Duration::from_millis(30));
        alarm.set(Some(time)).unwrap();
        assert!(rings(&alarm, Duration::from_secs(10)));
        assert!(BootTime::now() >= time);
        alarm.set(None).unwrap();
        assert!(!rings(&alarm, Duration::ZERO));
        alarm.set(Some(BootTime::from_ms(0))).unwrap();
        assert!(rings(&alarm, Duration::from_secs(10)), "it was long ago");
    }
}
