//! The commands that do the same once more, for people to paste.

use std::io::Write as _;

const SIMULATOR: &str = "cargo run --locked -q --profile sim -p vimana-testkit --bin vimana-sim --";

/// One seed, told in full.
#[must_use]
pub fn seed(seed: u64) -> String {
    format!("{SIMULATOR} --seed {seed} --verbose")
}

/// Many seeds.
#[must_use]
pub fn seeds(from: u64, seeds: u64) -> String {
    format!("{SIMULATOR} --from {from} --seeds {seeds}")
}

/// One case of the crash matrix, told in full.
#[must_use]
pub fn case(title: &str) -> String {
    format!("{SIMULATOR} --case '{title}'")
}

/// One golden scenario, told in full.
#[must_use]
pub fn scenario(file: &str) -> String {
    format!("{SIMULATOR} --scenario {file}")
}

/// One test.
#[must_use]
pub fn test(file: &str, test: &str) -> String {
    format!("cargo test --locked --profile sim -p vimana-testkit --test {file} -- --exact {test}")
}

/// Says it on the terminal, also from within a test that passes.
pub fn say(line: &str) {
    // Whoever does not listen misses nothing that matters.
    let _ = writeln!(std::io::stderr(), "{line}");
}
