//! Every golden scenario gives the log below it. With `VIMANA_REWRITE=1` in
//! the environment the logs are written anew.

#![expect(clippy::unwrap_used, reason = "a test may give up loudly")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use vimana_testkit::sim::repeat;
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
            Err(why) => writeln!(wrong, "{}\n{name} fails: {why}", again(path)).unwrap(),
            Ok(log) if log == expected => {}
            Ok(log) if rewrite => {
                fs::write(path, format!("{commands}{RULE}{log}")).unwrap();
            }
            Ok(log) => {
                let differs = difference(expected, &log);
                writeln!(wrong, "{}\n{name}:\n{differs}", again(path)).unwrap();
            }
        }
    }
    assert!(paths.len() >= 18, "only {} scenarios", paths.len());
    assert!(wrong.is_empty(), "{wrong}");
    let test = repeat::test("scenarios", "every_scenario_goes_as_it_is_written");
    repeat::say(&format!("{} scenarios: {test}", paths.len()));
}

/// The command that plays it once more, from the workspace's root.
fn again(path: &Path) -> String {
    let name = path.file_name().unwrap().display();
    repeat::scenario(&format!("crates/testkit/scenarios/{name}"))
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
