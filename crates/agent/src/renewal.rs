//! When a certificate is due for renewal, on a host whose clock may be wrong
//! or be set in between.

/// What the clocks say, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Wall {
    /// When the certificate came, by this host's clock.
    pub issued_at: u64,
    /// The last look at this host's clock, and the one before.
    pub now: u64,
    pub before: u64,
    /// In the certificate, by the server's clock.
    pub expires_at: u64,
}

/// A certificate's life, and how much of it this host gives away.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub ms: u64,
    early_ms: u64,
}

impl Life {
    /// Of `ms` milliseconds. Hosts that joined together do not renew together:
    /// `random`, which stays the same for one host, tells them apart.
    pub fn new(ms: u64, random: u8) -> Self {
        // From a thirtieth to a tenth.
        let early_ms = ms / 30 + (ms / 15) / 255 * u64::from(random);
        Self { ms, early_ms }
    }

    /// Shortly before two thirds of the life: by this host's clock alone, or
    /// as the end comes near, whichever is earlier. A clock that was set back
    /// tells nothing any more: then now is the time.
    pub fn is_due(self, wall: Wall) -> bool {
        let Some(age) = wall.now.checked_sub(wall.issued_at) else {
            return true;
        };
        let due = self.ms / 3 * 2 - self.early_ms;
        if age >= due || wall.now < wall.before {
            return true;
        }
        let left = wall.expires_at.saturating_sub(wall.now);
        // With this host's clock far ahead of the server's the end is always near.
        left <= self.ms.saturating_sub(due) && age >= self.ms / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;
    const ISSUED: u64 = 20_000 * DAY;

    fn moved(ms: u64, days: i64) -> u64 {
        let ms_off = days * i64::try_from(DAY).unwrap();
        ms.checked_add_signed(ms_off).unwrap()
    }

    /// On day `day` after the certificate came, with this host's clock so many
    /// days off then and now, and the server's as it was when it signed.
    fn due(day: u64, host_then: i64, host_now: i64, server_then: i64) -> bool {
        let now = moved(ISSUED + day * DAY, host_now);
        let wall = Wall {
            issued_at: moved(ISSUED, host_then),
            now,
            before: now,
            expires_at: moved(ISSUED + 90 * DAY, server_then),
        };
        Life::new(90 * DAY, 0).is_due(wall)
    }

    #[test]
    fn shortly_before_two_thirds_of_the_life_with_good_clocks() {
        assert!(!due(0, 0, 0, 0));
        assert!(!due(56, 0, 0, 0));
        assert!(due(57, 0, 0, 0));
        assert!(due(100, 0, 0, 0));
    }

    #[test]
    fn no_two_hosts_at_the_same_time() {
        let wall = Wall {
            issued_at: ISSUED,
            now: ISSUED + 55 * DAY,
            before: ISSUED,
            expires_at: ISSUED + 90 * DAY,
        };
        assert!(!Life::new(90 * DAY, 0).is_due(wall));
        assert!(Life::new(90 * DAY, 255).is_due(wall));
        let young = Wall {
            now: ISSUED + 50 * DAY,
            ..wall
        };
        assert!(!Life::new(90 * DAY, 255).is_due(young));
    }

    #[test]
    fn a_clock_that_is_wrong_all_the_time_is_as_good_as_a_right_one() {
        for off in [-30, 30] {
            assert!(!due(1, off, off, 0), "{off}");
            assert!(due(57, off, off, 0), "{off}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_renews_at_once() {
        assert!(due(29, 0, -30, 0));
        let set_back = Wall {
            issued_at: ISSUED,
            now: ISSUED + 20 * DAY,
            before: ISSUED + 50 * DAY,
            expires_at: ISSUED + 90 * DAY,
        };
        assert!(Life::new(90 * DAY, 0).is_due(set_back));
    }

    #[test]
    fn a_clock_that_was_set_forward_renews_no_later() {
        assert!(!due(20, 0, 30, 0));
        assert!(due(27, 0, 30, 0));
    }

    #[test]
    fn a_server_that_signed_with_a_clock_behind_is_asked_earlier() {
        // Once its clock is right, the end is on day 60.
        assert!(!due(20, 0, 0, -30));
        assert!(due(27, 0, 0, -30));
    }

    #[test]
    fn a_clock_far_ahead_does_not_renew_all_the_time() {
        assert!(!due(8, 365, 365, 0));
        assert!(due(9, 365, 365, 0));
    }
}
