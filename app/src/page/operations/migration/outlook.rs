//! What is shown of a copy under way. The numbers that come jump about; nobody
//! believes a bar that runs backwards, or a time that grows.

use std::fmt;

use vimana_model::migration::{CopyPhase, CopyProgress};
use vimana_model::operation::Progress;
use vimana_ui::thousandths;

/// How many reports in a row must say so before what is shown is given up: a
/// host tells twice a second.
const STEADY: u32 = 3;

/// So many rounds in a row that began with as much as the one before: none of them
/// has brought it nearer to its end.
const FLAT_ROUNDS: u32 = 2;

/// Rates are averages of about so many reports.
const REPORTS: u64 = 16;

/// Longer than that nobody waits for a number.
const LONGEST_S: u64 = 24 * 3600;

/// From the least to the most, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLeft {
    pub least_s: u64,
    pub most_s: u64,
}

/// Everything that is shown, kept from one report to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    pub phase: CopyPhase,
    /// Of the phase, in thousandths.
    pub done: u32,
    pub done_bytes: u64,
    /// What was there to copy when the phase began.
    pub total_bytes: u64,
    /// What is left of this round.
    pub left_bytes: u64,
    pub round: u64,
    /// As copied, in bytes a second; none before that is known.
    pub rate: Option<u64>,
    /// As the guest changes it, in bytes a second.
    pub dirty: u64,
    pub time_left: Option<TimeLeft>,
    /// The guest changes it as fast as it is copied, or faster.
    pub is_stuck: bool,
    /// What the round began with, and the one before it.
    round_bytes: u64,
    last_round: Option<u64>,
    /// Rounds in a row that did not help.
    flat: u32,
    /// Reports that brought a rate, up to [`REPORTS`].
    reports: u64,
    /// Reports in a row that speak against what is shown.
    against: u32,
    slower: u32,
}

impl Outlook {
    /// Takes in a report; nothing comes of one that is about no copy.
    pub fn update(before: Option<&Self>, report: Option<Progress>) -> Option<Self> {
        let Progress {
            done_bytes,
            total_bytes,
            copy,
        } = report?;
        let copy = copy?;
        let mut now = match before {
            Some(before) if before.phase == copy.phase => before.clone(),
            Some(_) | None => Self::begin(&copy),
        };
        now.count(done_bytes, total_bytes, &copy);
        now.measure(&copy);
        now.reckon();
        Some(now)
    }

    const fn begin(copy: &CopyProgress) -> Self {
        Self {
            phase: copy.phase,
            done: 0,
            done_bytes: 0,
            total_bytes: 0,
            left_bytes: 0,
            round: copy.rounds,
            rate: None,
            dirty: copy.dirty_bytes_per_s,
            time_left: None,
            is_stuck: false,
            round_bytes: copy.remaining_bytes,
            last_round: None,
            flat: 0,
            reports: 0,
            against: 0,
            slower: 0,
        }
    }

    fn count(&mut self, done_bytes: u64, total_bytes: u64, copy: &CopyProgress) {
        self.done_bytes = self.done_bytes.max(done_bytes);
        self.total_bytes = self.total_bytes.max(total_bytes).max(self.done_bytes);
        let done = thousandths(self.done_bytes, self.total_bytes);
        self.done = self.done.max(done);
        if self.round != copy.rounds {
            self.end_round(copy.rounds == self.round.saturating_add(1));
            self.round = copy.rounds;
        }
        self.left_bytes = copy.remaining_bytes;
        self.round_bytes = self.round_bytes.max(self.left_bytes);
    }

    /// A hypervisor counts what has changed once, however often it did: of a guest
    /// that changes the same memory again and again it seems that it changes just what
    /// is copied. What tells is whether there is less to do from round to round. Of
    /// rounds that were not seen, nothing is known.
    fn end_round(&mut self, seen: bool) {
        let last = self.last_round.replace(self.round_bytes);
        let flat = |last: u64| product_over(last, 9, 10) <= self.round_bytes;
        self.flat = match last {
            Some(last) if seen && flat(last) => self.flat.saturating_add(1),
            Some(_) | None => 0,
        };
        if !seen {
            self.last_round = None;
        }
        self.round_bytes = 0;
    }

    fn measure(&mut self, copy: &CopyProgress) {
        if copy.bytes_per_s > 0 {
            self.reports = self.reports.saturating_add(1).min(REPORTS);
            let before = self.rate.unwrap_or_default();
            self.rate = Some(average(before, copy.bytes_per_s, self.reports));
        }
        self.dirty = average(self.dirty, copy.dirty_bytes_per_s, self.reports.max(1));
        let slower = self.flat >= FLAT_ROUNDS || self.rate.is_some_and(|rate| self.dirty >= rate);
        // What is shown changes after a while, in both directions.
        if slower == self.is_stuck {
            self.slower = 0;
            return;
        }
        self.slower = self.slower.saturating_add(1);
        if self.slower >= STEADY {
            self.slower = 0;
            self.is_stuck = slower;
        }
    }

    fn reckon(&mut self) {
        if self.is_stuck {
            self.time_left = None;
            self.against = 0;
            return;
        }
        // Where nothing can be said for a moment, what was said stays.
        let Some(reckoned) = self.reckoned() else {
            return;
        };
        let Some(shown) = self.time_left else {
            self.time_left = Some(reckoned);
            return;
        };
        // Half as much again is more than any average jumps.
        if reckoned.least_s > shown.most_s.saturating_add(shown.most_s / 2) {
            self.against = self.against.saturating_add(1);
            if self.against >= STEADY {
                self.against = 0;
                self.time_left = Some(reckoned);
            }
            return;
        }
        self.against = 0;
        self.time_left = Some(TimeLeft {
            least_s: shown.least_s.min(reckoned.least_s),
            most_s: shown.most_s.min(reckoned.most_s),
        });
    }

    /// At least what is left goes over the line. At most, so does what the guest
    /// changes meanwhile, and what it has changed in this round, which the
    /// hypervisor counts when the next one begins.
    fn reckoned(&self) -> Option<TimeLeft> {
        let rate = self.rate?;
        let left = self.left_bytes;
        let (dirty, changed) = match self.phase {
            CopyPhase::Memory => {
                let sent = self.round_bytes.saturating_sub(left);
                (self.dirty, product_over(sent, self.dirty, rate))
            }
            CopyPhase::Disks | CopyPhase::Switchover => (0, 0),
        };
        let gain = rate.checked_sub(dirty).filter(|gain| *gain > 0)?;
        let most_s = left.saturating_add(changed).div_ceil(gain);
        (most_s <= LONGEST_S).then(|| TimeLeft {
            least_s: left.checked_div(rate).unwrap_or_default(),
            most_s,
        })
    }
}

impl fmt::Display for TimeLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least_s, most_s } = *self;
        let (least, most) = (Coarse::down(least_s), Coarse::up(most_s));
        if most_s <= 1 {
            return f.write_str("about a second");
        }
        if least.0 == 0 {
            return write!(f, "up to {most}");
        }
        if least == most {
            return write!(f, "about {most}");
        }
        if least.1 == most.1 {
            return write!(f, "{}–{most}", least.0);
        }
        write!(f, "{least} to {most}")
    }
}

/// As many as nobody counts more exactly, and of what.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Coarse(u64, &'static str);

impl Coarse {
    const UNITS: [(u64, &'static str); 2] = [(3600, "h"), (60, "min")];

    fn down(seconds: u64) -> Self {
        Self::of(seconds, |seconds, unit| seconds / unit)
    }

    fn up(seconds: u64) -> Self {
        Self::of(seconds, u64::div_ceil)
    }

    fn of(seconds: u64, divide: fn(u64, u64) -> u64) -> Self {
        let mut units = Self::UNITS.into_iter();
        // Of two and more, one is not too coarse.
        let unit = units.find(|(unit, _)| seconds >= unit * 2);
        unit.map_or(Self(seconds, "s"), |(unit, name)| {
            Self(divide(seconds, unit), name)
        })
    }
}

impl fmt::Display for Coarse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

/// With what came as one of so many.
fn average(before: u64, new: u64, reports: u64) -> u64 {
    let others = u128::from(before) * u128::from(reports.saturating_sub(1));
    let mean = (others + u128::from(new)) / u128::from(reports.max(1));
    u64::try_from(mean).unwrap_or(u64::MAX)
}

fn product_over(a: u64, b: u64, by: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) / u128::from(by.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
