#!/bin/bash
# Builds what `make run` starts: the demo image, the site, the binaries.
# VIMANA_PROFILE=dev builds the binaries quickly and unoptimized, for tests.
set -euo pipefail
. "$(dirname "$0")/env.sh"

binaries=(vimana-server vimana-agent vimana-watchdog vimana-scheduler vimana-convert vimana)

build_binaries() {
    cargo build --locked --profile "$profile" \
        -p vimana-server -p vimana-agent -p vimana-watchdog -p vimana-scheduler -p vimana-convert -p vimana-cli
    local from=$CARGO_TARGET_DIR/$profile binary
    [ "$profile" != dev ] || from=$CARGO_TARGET_DIR/debug
    mkdir -p "$bin"
    for binary in "${binaries[@]}"; do
        # A running binary cannot be written to, but its name can be given away.
        cp --remove-destination "$from/$binary" "$bin/"
    done
}

# Several checkouts share the cache: one builds at a time.
exec 8>"$cache/build.lock"
flock 8

step "demo image" demo-image/build.sh "$demo_image"
step "site" cargo xtask site --release
step "binaries" build_binaries
# For people in this checkout: bin/vimana.
[ "$profile" = dev ] || ln -sfn "$bin" bin
