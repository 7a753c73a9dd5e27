//! A few seeds of the simulator, and that a seed repeats itself. Many more:
//! `cargo run --locked --profile sim -p vimana-testkit --bin vimana-sim -- --seeds 1000`.

use vimana_testkit::sim::{repeat, run};

#[test]
fn the_rules_hold_in_every_storm() {
    const SEEDS: u64 = 50;
    for seed in 0..SEEDS {
        let outcome = run(seed);
        assert!(
            outcome.breaches.is_empty(),
            "{:#?}\nagain: {}",
            outcome.breaches,
            repeat::seed(seed)
        );
        assert!(
            outcome.counts.contains_key("operations"),
            "nobody did anything"
        );
    }
    repeat::say(&format!("{SEEDS} seeds: {}", repeat::seeds(0, SEEDS)));
}

#[test]
fn the_same_seed_does_the_same() {
    for seed in [1, 5, 9] {
        let (first, again) = (run(seed), run(seed));
        let differ = first.text.lines().zip(again.text.lines());
        let differ = differ.clone().position(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed} differs from that line on");
        assert_eq!(first.fingerprint, again.fingerprint, "seed {seed}");
    }
    assert_ne!(run(1).fingerprint, run(2).fingerprint);
}
