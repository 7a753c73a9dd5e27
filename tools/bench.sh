#!/bin/bash
# Measures a whole Vimana on this machine.
set -euo pipefail
. "$(dirname "$0")/env.sh"

# Of the test profile, because it needs a web server.
tools/setup.sh test
tools/build.sh
step "load generator" cargo build --locked --release -p vimana-load
step "disk making" cargo build --locked --release -p vimana-driver-qemu --example overlays
node end2end/bench.mjs
