# Where things are kept, for the other scripts here; sourced, not run.
# Everything large is outside the checkout, so that a second clone is quick.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${VIMANA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vimana}
export VIMANA_CACHE=$cache
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
data=${VIMANA_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/vimana}
profile=${VIMANA_PROFILE:-release}
bin=$cache/bin/$profile
demo_image=$cache/demo-image/demo.qcow2
mkdir -p "$cache"

# Cargo takes what another checkout left there for this one's, where this one's
# files are older: when the checkout changes, they are made new.
mkdir -p "$CARGO_TARGET_DIR"
if [ "$(cat "$CARGO_TARGET_DIR/checkout" 2>/dev/null)" != "$PWD" ]; then
    find . \( -name target -o -name node_modules -o -name .git \) -prune -o -type f -exec touch -c {} +
    echo "$PWD" >"$CARGO_TARGET_DIR/checkout"
fi

# step TEXT COMMAND...: says what is done and how long it took.
step() {
    local text=$1 start=$SECONDS
    shift
    echo "── $text"
    "$@"
    echo "── $text: $((SECONDS - start)) s"
}
