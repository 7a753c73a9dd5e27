#!/bin/bash
# Everything that must hold before a change lands. A part that cannot run on
# this machine fails; nothing is skipped.
set -euo pipefail
. "$(dirname "$0")/env.sh"

export VIMANA_PROFILE=dev VIMANA_DEMO_IMAGE=$demo_image
# `app` has two sides that exclude each other; it is built through the server
# on the one and through `frontend` on the other.
workspace=(--locked --workspace --exclude vimana-app --exclude vimana-frontend)
wasm=(--locked -p vimana-frontend --target wasm32-unknown-unknown)

lints() {
    cargo clippy "${workspace[@]}" --all-targets -- -D warnings
    cargo clippy --locked -p vimana-app --features ssr --all-targets -- -D warnings
    cargo clippy "${wasm[@]}" -- -D warnings
}

browser_packages() {
    # Only what package-lock.json names, from the cache where it is there.
    npm ci --prefix end2end --prefer-offline --cache "$cache/npm" --silent
}

# Every eighth case of the crash matrix, and some of the simulator's seeds: which ones
# depends on the commit, so that all have their turn. By hand `cargo test` runs all of
# them.
turn=$((0x$(git rev-parse --short=6 HEAD 2>/dev/null || echo 0)))
export VIMANA_MATRIX_EIGHTH=$((turn % 8))

step "set-up" tools/setup.sh test
step "format" cargo fmt --all --check
step "demo image" demo-image/build.sh "$demo_image"
step "lints" lints
# Every crate has its turn even where one fails: one run shows all that is broken.
step "unit tests, store suite, driver conformance" \
    cargo test "${workspace[@]}" --exclude vimana-testkit --no-fail-fast
step "crash matrix, scenarios" cargo test --locked --profile sim -p vimana-testkit
step "simulator, 200 seeds" \
    cargo run --locked -q --profile sim -p vimana-testkit --bin vimana-sim -- --from "$turn" --seeds 200
step "portal's own tests" cargo test --locked -p vimana-app --features ssr
step "demo image boots" demo-image/test.sh "$demo_image"
step "site and binaries" tools/build.sh
step "browser packages" browser_packages
# A file that hangs is ended and fails: the longest takes seven minutes.
step "browser" node --test --test-concurrency=2 --test-timeout=900000 end2end/tests/
