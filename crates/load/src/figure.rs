//! One line of the result.

use std::time::Duration;

pub struct Figure<'a> {
    name: &'a str,
    value: f64,
    unit: &'a str,
    goal: &'a str,
}

impl<'a> Figure<'a> {
    pub fn new(name: &'a str, value: f64, unit: &'a str) -> Self {
        Self {
            name,
            value: (value * 100.0).round() / 100.0,
            unit,
            goal: "",
        }
    }

    #[must_use]
    pub fn goal(mut self, goal: &'a str) -> Self {
        self.goal = goal;
        self
    }

    pub fn print(self) {
        let Self {
            name,
            value,
            unit,
            goal,
        } = self;
        println!(
            "{}",
            serde_json::json!({ "name": name, "value": value, "unit": unit, "goal": goal })
        );
    }
}

pub fn per_second(count: u32, time: Duration) -> f64 {
    f64::from(count) / time.as_secs_f64()
}

/// In ms, of times that are sorted.
pub fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let count = f64::from(u32::try_from(sorted.len()).unwrap_or(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count is a small number above zero"
    )]
    let index = (count * share) as usize;
    let found = sorted.get(index).or(sorted.last());
    found.map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
