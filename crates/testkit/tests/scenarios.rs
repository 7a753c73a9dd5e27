//! Every golden scenario gives the log below it. With `VIMANA_REWRITE=1` in
//! the environment the logs are written anew.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use vimana_testkit::sim::scenario::play;

const RULE: &str = "---\n";

#[test]
fn every_scenario_goes_as_it_is_written() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let rewrite = std::env::var_os("VIMANA_REWRITE").is_some();
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    paths.sort();
    let mut wrong = String::new();
    for path in &paths {
        let text = fs::read_to_string(path).unwrap();
        let (commands, expected) = text.split_once(RULE).unwrap_or((&text, ""));
        let name = path.file_stem().unwrap().display();
        match play(commands) {
            Err(why) => writeln!(wrong, "{name} fails: {why}").unwrap(),
            Ok(log) if log == expected => {}
            Ok(log) if rewrite => {
                fs::write(path, format!("{commands}{RULE}{log}")).unwrap();
            }
            Ok(log) => writeln!(wrong, "{name}:\n{}", difference(expected, &log)).unwrap(),
        }
    }
    assert!(paths.len() >= 11, "only {} scenarios", paths.len());
    assert!(wrong.is_empty(), "{wrong}");
}

/// From the first line that differs.
fn difference(expected: &str, found: &str) -> String {
    let same = expected
        .lines()
        .zip(found.lines())
        .take_while(|(expected, found)| expected == found)
        .count();
    let mut shown = String::new();
    for (sign, text) in [("-", expected), ("+", found)] {
        for line in text.lines().skip(same).take(12) {
            writeln!(shown, "{sign} {line}").unwrap();
        }
    }
    shown
}
