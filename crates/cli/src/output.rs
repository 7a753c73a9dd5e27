//! What goes to standard output: JSON for programs, tables for people.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use vimana_model::Timestamp;
use vimana_model::event::EventView;
use vimana_model::name::DatastoreName;

use crate::failure::{Failure, Outcome};
use crate::text::{shown, shown_json};

/// Prints one value as indented JSON.
pub fn json<T: Serialize>(value: &T) -> Outcome {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))?;
    line(&shown_json(&text))
}

/// Prints one line of our own making.
pub fn line(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Prints rows in aligned columns under `titles`, or `none` when there are none.
pub fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]], none: &str) -> Outcome {
    if rows.is_empty() {
        if io::stdout().is_terminal() {
            line(none)?;
        }
        return Ok(());
    }
    line(&layout(titles, rows))
}

fn layout<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let titles = titles.map(str::to_owned);
    let cells: Vec<[String; N]> = std::iter::once(&titles)
        .chain(rows)
        .map(|row| row.each_ref().map(|cell| shown(cell)))
        .collect();
    let mut widths = [0; N];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines: Vec<String> = cells
        .iter()
        .map(|row| {
            let padded: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Prints what is known about one thing, a line each.
pub fn fields(pairs: &[(&str, String)]) -> Outcome {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in pairs {
        line(&format!("{name:<width$}  {}", shown(value)))?;
    }
    Ok(())
}

/// Prints what happened, a line each.
pub fn timeline(events: &[EventView]) -> Outcome {
    for event in events {
        line(&format!(
            "{}  {}  {}",
            event.at,
            shown(&event.actor.to_string()),
            shown(&event.event.sentence())
        ))?;
    }
    Ok(())
}

/// Where a disk is that may be on its way elsewhere.
pub fn place(at: &DatastoreName, to: Option<&DatastoreName>) -> String {
    match to {
        Some(to) => format!("{at}, on its way to {to}"),
        None => at.to_string(),
    }
}

/// A time as people read it: UTC, without fractions.
pub fn time(at: Timestamp) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{}Z", seconds.replace('T', " ")),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_hostile_text_is_inert() {
        let rows = [
            ["web-1".to_owned(), "x".to_owned()],
            ["\u{1b}[2J".to_owned(), "y".to_owned()],
        ];
        assert_eq!(
            layout(["NAME", "STATE"], &rows),
            "NAME       STATE\nweb-1      x\n\\u{1b}[2J  y"
        );
    }

    #[test]
    fn times_read_well() {
        assert_eq!(
            time(Timestamp::from_ms(1_700_000_000_123)),
            "2023-11-14 22:13:20Z"
        );
    }
}
