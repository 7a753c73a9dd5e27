//! Times: absolute and in UTC as the server writes them, relative once the
//! page is alive. The first render reads no clock, so both sides agree.

use leptos::prelude::*;

use crate::follow::{memo, text};

/// The reader's clock, ticking every second; `None` until the page is alive.
#[derive(Clone, Copy)]
pub struct Clock(RwSignal<Option<i64>>);

impl Clock {
    pub fn provide() {
        provide_context(Self(RwSignal::new(None)));
    }

    /// Lets it tick for as long as the caller is there. To be called by
    /// something in the page: what is above it lives before the page is taken
    /// over, and times must not differ from what the server wrote until then.
    pub fn run(self) {
        #[cfg(feature = "hydrate")]
        Effect::new(move |_| {
            let tick = move || {
                self.0.try_set(Some(now_ms()));
            };
            tick();
            // Without a timer, times stay as they were; nothing else is lost.
            if let Ok(timer) = set_interval_with_handle(tick, std::time::Duration::from_secs(1)) {
                on_cleanup(move || timer.clear());
            }
        });
    }

    /// Milliseconds since the Unix epoch, in reactive contexts.
    #[must_use]
    pub fn now_ms(self) -> Option<i64> {
        self.0.get()
    }
}

#[cfg(feature = "hydrate")]
#[expect(
    clippy::cast_possible_truncation,
    reason = "milliseconds since 1970 fit 53 bits"
)]
fn now_ms() -> i64 {
    js_sys::Date::now() as i64
}

fn clock_ms() -> Option<i64> {
    use_context::<Clock>().and_then(Clock::now_ms)
}

/// A point in time.
#[component]
pub fn Time(
    /// Milliseconds since the Unix epoch.
    #[prop(into)]
    at_ms: Signal<i64>,
) -> impl IntoView {
    let clock = use_context::<Clock>();
    let shown = memo(move || {
        clock.and_then(Clock::now_ms).map_or_else(
            || absolute(at_ms.get()),
            |now| relative(now.saturating_sub(at_ms.get())),
        )
    });
    view! {
        <time datetime=text(move || machine(at_ms.get())) title=text(move || absolute(at_ms.get()))>
            {shown}
        </time>
    }
}

/// A point in time to come: "in 12 s", and "now" from then on.
#[component]
pub fn Until(
    /// Milliseconds since the Unix epoch.
    #[prop(into)]
    at_ms: Signal<i64>,
) -> impl IntoView {
    let clock = use_context::<Clock>();
    let shown = memo(move || {
        clock.and_then(Clock::now_ms).map_or_else(
            || absolute(at_ms.get()),
            |now| until(at_ms.get().saturating_sub(now)),
        )
    });
    view! {
        <time datetime=text(move || machine(at_ms.get())) title=text(move || absolute(at_ms.get()))>
            {shown}
        </time>
    }
}

/// How long something took, or has taken so far.
#[component]
pub fn Elapsed(
    #[prop(into)] from_ms: Signal<i64>,
    /// When it ended; counts on while there is none.
    #[prop(into)]
    to_ms: Signal<Option<i64>>,
) -> impl IntoView {
    let shown = memo(move || {
        to_ms
            .get()
            .or_else(clock_ms)
            .map(|end| duration(end.saturating_sub(from_ms.get())))
            .unwrap_or_default()
    });
    view! { <span class="elapsed">{shown}</span> }
}

/// Civil date of a day number since 1970-01-01 (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms").
const fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

fn parts(at_ms: i64) -> (String, String) {
    let seconds = at_ms.div_euclid(1000);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    (
        format!("{year:04}-{month:02}-{day:02}"),
        format!(
            "{:02}:{:02}:{:02}",
            of_day / 3600,
            of_day / 60 % 60,
            of_day % 60
        ),
    )
}

/// "2026-11-22 18:00:03 UTC".
#[must_use]
pub fn absolute(at_ms: i64) -> String {
    let (date, time) = parts(at_ms);
    format!("{date} {time} UTC")
}

fn machine(at_ms: i64) -> String {
    let (date, time) = parts(at_ms);
    format!("{date}T{time}Z")
}

/// How long ago: "3 min ago".
fn relative(ago_ms: i64) -> String {
    if ago_ms < 5_000 {
        "just now".to_owned()
    } else {
        format!("{} ago", coarse(ago_ms))
    }
}

/// "in 12 s", "now".
fn until(ms: i64) -> String {
    if ms <= 0 {
        "now".to_owned()
    } else {
        // The last second is not over before it is.
        format!("in {}", coarse(ms.saturating_add(999)))
    }
}

fn coarse(ms: i64) -> String {
    match ms / 1000 {
        seconds @ ..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// "0.4 s", "12 s", "3 min 5 s".
fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    match ms {
        ..10_000 => format!("{}.{} s", ms / 1000, ms / 100 % 10),
        10_000..60_000 => format!("{} s", ms / 1000),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_times_are_right_around_leap_days() {
        assert_eq!(absolute(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(absolute(951_782_399_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(absolute(951_782_400_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(absolute(-1), "1969-12-31 23:59:59 UTC");
        assert_eq!(absolute(1_700_000_000_123), "2023-11-14 22:13:20 UTC");
    }

    #[test]
    fn relative_times_read_well() {
        let shown = [-5, 4_000, 59_000, 61_000, 7_200_000, 200_000_000].map(relative);
        assert_eq!(
            shown,
            [
                "just now",
                "just now",
                "59 s ago",
                "1 min ago",
                "2 h ago",
                "2 d ago"
            ]
        );
    }

    #[test]
    fn times_to_come_read_well() {
        let shown = [-5, 0, 1, 59_000, 61_000, 200_000_000].map(until);
        assert_eq!(
            shown,
            ["now", "now", "in 1 s", "in 59 s", "in 1 min", "in 2 d"]
        );
    }

    #[test]
    fn durations_read_well() {
        let shown = [-1, 449, 12_345, 185_000, 7_260_000].map(duration);
        assert_eq!(shown, ["0.0 s", "0.4 s", "12 s", "3 min 5 s", "2 h 1 min"]);
    }
}
