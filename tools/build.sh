#!/bin/bash
# Builds what `make run` starts: the demo image, the site, the binaries.
set -euo pipefail
. "$(dirname "$0")/env.sh"

binaries=(vimana-server vimana-agent vimana-scheduler vimana)

build_binaries() {
    cargo build --locked --release \
        -p vimana-server -p vimana-agent -p vimana-scheduler -p vimana-cli
    mkdir -p "$cache/bin"
    local binary
    for binary in "${binaries[@]}"; do
        # A running binary cannot be written to, but its name can be given away.
        cp --remove-destination "$CARGO_TARGET_DIR/release/$binary" "$cache/bin/"
    done
    # For people in this checkout: bin/vimana.
    ln -sfn "$cache/bin" bin
}

step "demo image" demo-image/build.sh "$demo_image"
step "site" cargo xtask site --release
step "binaries" build_binaries
