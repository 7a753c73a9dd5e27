#!/bin/sh
# Fetches what a fresh machine lacks. Run by `make run`, `make test` and `make bench`; does nothing, quickly, where
# nothing is missing.
#
#   tools/setup.sh run     what building and running need
#   tools/setup.sh test    also what the tests need: a browser, fonts, PostgreSQL, web, FTP and NFS servers
#
# On Debian 12 with root (or sudo without a password) it installs; elsewhere it says what is missing and stops.
set -eu
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

profile=${1:-run}
case $profile in
run | test) ;;
*)
    echo "usage: $0 [run|test]" >&2
    exit 2
    ;;
esac
here=$(cd "$(dirname "$0")/.." && pwd)
cache=${VIMANA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vimana}
log=$cache/setup.log
mkdir -p "$cache"

say() { echo "setup: $*"; }
fail() {
    echo "setup: $*" >&2
    exit 1
}

# step TEXT COMMAND...: one line of progress; what the command prints goes to the log.
step() {
    text=$1
    shift
    printf 'setup: %s ... ' "$text"
    step_start=$(date +%s)
    echo "=== $(date) $*" >>"$log"
    if "$@" >>"$log" 2>&1 </dev/null; then
        echo "$(($(date +%s) - step_start)) s"
    else
        echo "failed after $(($(date +%s) - step_start)) s (see $log)"
        return 1
    fi
}

# --- what is missing -------------------------------------------------------------------------------------------------
has() { command -v "$1" >/dev/null 2>&1; }
has_file() { # any of the files
    for file; do
        [ ! -e "$file" ] || return 0
    done
    return 1
}

find_missing() {
    packages= # Debian's names, without QEMU
    qemu=     # apart, because it comes from backports
    has cc || packages="$packages gcc"
    has_file /usr/include/stdio.h || packages="$packages libc6-dev"
    has pkg-config || packages="$packages pkg-config"
    has git || packages="$packages git"
    has_file /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt || packages="$packages ca-certificates"
    has node || packages="$packages nodejs" # never in place of one that is there
    has npm || packages="$packages npm"
    has mcopy || packages="$packages mtools"
    has mkfs.vfat || packages="$packages dosfstools"
    has syslinux || packages="$packages syslinux"
    has sfdisk || packages="$packages fdisk"
    has cpio || packages="$packages cpio"
    { has mke2fs && has debugfs; } || packages="$packages e2fsprogs"
    has xz || packages="$packages xz-utils"
    has qemu-system-x86_64 || qemu="$qemu qemu-system-x86"
    has qemu-img || qemu="$qemu qemu-utils"
    has_file /usr/lib/*/qemu/block-curl.so /usr/lib*/qemu/block-curl.so /usr/lib*/qemu-kvm/block-curl.so ||
        qemu="$qemu qemu-block-extra"
    has_file /usr/share/seabios/bios-256k.bin /usr/share/qemu/bios-256k.bin || qemu="$qemu seabios"
    if [ "$profile" = test ]; then
        has chromium || packages="$packages chromium"
        has_file /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf /usr/share/fonts/*/DejaVuSans.ttf \
            /usr/share/fonts/*/*/DejaVuSans.ttf || packages="$packages fonts-dejavu-core"
        has nginx || packages="$packages nginx-light"
        has_file /usr/lib/python3/dist-packages/pyftpdlib/__init__.py || packages="$packages python3-pyftpdlib"
        { has ganesha.nfsd && has_file /usr/lib/*/ganesha/libfsalvfs.so; } ||
            packages="$packages nfs-ganesha nfs-ganesha-vfs"
        has rpcbind || packages="$packages rpcbind"
        has initdb || has_file /usr/lib/postgresql/*/bin/initdb || packages="$packages postgresql"
    fi
}

# --- Debian packages --------------------------------------------------------------------------------------------------
sudo=
may_install() {
    [ "$(. /etc/os-release 2>/dev/null && echo "${ID:-} ${VERSION_CODENAME:-}")" = "debian bookworm" ] && has apt-get || return 1
    [ "$(id -u)" != 0 ] || return 0
    has sudo && sudo -n true 2>/dev/null && sudo=sudo
}

apt() {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"
}

apt_update() { # the lock of the package lists has no time limit to wait for: try again
    for wait in 5 15 30 60 0; do
        ! apt update || return 0
        sleep $wait
    done
    return 1
}

apt_install() { apt install --no-install-recommends "$@"; }

has_backports() { apt-cache policy | grep -q 'n=bookworm-backports'; }

# The mirror is the one this machine already uses for bookworm itself.
enable_backports() {
    # shellcheck disable=SC2016 # $(REPO_URI) is apt's own
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk '$2 == "bookworm" && $3 == "main" { print $1; exit }')
    [ -n "$mirror" ] || return 1
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    list=/etc/apt/sources.list.d/vimana-backports.sources
    {
        printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\n' "$mirror"
        [ ! -r $keyring ] || echo "Signed-By: $keyring"
    } | $sudo tee $list
    if ! apt_update || ! has_backports; then # an unreachable suite would break every later update
        $sudo rm -f $list
        return 1
    fi
}

install_qemu() {
    has_backports || step "Debian's backports, for QEMU 10" enable_backports || say "no backports here"
    # seabios must fit the QEMU that is installed, so it is always asked for together with it.
    # shellcheck disable=SC2086
    if has_backports && step "QEMU 10 (backports):$qemu" apt_install -t bookworm-backports $qemu; then
        return
    fi
    # shellcheck disable=SC2086
    step "QEMU 7.2 (bookworm):$qemu" apt_install $qemu || fail "QEMU could not be installed"
}

# Debian's package would start a database cluster that nobody here uses.
no_postgresql_cluster() {
    [ ! -e /etc/postgresql-common/createcluster.conf ] || return 0
    $sudo mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf
}

install_packages() {
    if ! may_install; then
        echo "setup: missing, by the names of Debian's packages:$packages$qemu" >&2
        if has apt-get; then
            echo "setup: this installs them:  sudo apt-get install --no-install-recommends$packages$qemu" >&2
        else
            echo "setup: please install them, under whatever name, with this system's package manager" >&2
        fi
        exit 1
    fi
    step "package lists" apt_update || say "going on with the lists that are there"
    case " $packages " in
    *' postgresql '*) step "PostgreSQL without a cluster of its own" no_postgresql_cluster || true ;;
    esac
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086
        step "Debian packages:$packages" apt_install $packages || fail "the packages could not be installed"
    fi
    [ -z "$qemu" ] || install_qemu
    find_missing
    [ -z "$packages$qemu" ] || fail "installed, but still not found:$packages$qemu"
}

# --- Rust for the browser ---------------------------------------------------------------------------------------------
# Leaves its answer in $cache/wasm-toolchain: "rustup" (the pinned toolchain has the target) or "debian-web" (Debian's
# newer compiler builds the standard library itself).
debian_web=$cache/debian-web

link_debian_web() {
    has rustc-web || [ -x /usr/bin/rustc ] || return 1
    lld=$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld
    [ -x "$lld" ] || return 1
    rm -rf "$debian_web"
    mkdir -p "$debian_web/bin" "$debian_web/lib" "$debian_web/lld"
    ln -s /usr/bin/rustc /usr/bin/rustdoc /usr/bin/cargo "$debian_web/bin/"
    ln -s /usr/lib/rustlib "$debian_web/lib/rustlib"
    ln -s "$lld" "$debian_web/lld/rust-lld"
    rustup toolchain link debian-web "$debian_web"
}

rust_for_the_browser() {
    has rustup || fail "rustup is missing: it brings the pinned Rust and its wasm32 target"
    cd "$here" # where rust-toolchain.toml says which toolchain
    channel=$(sed -n 's/^ *channel *= *"\(.*\)".*/\1/p' rust-toolchain.toml 2>/dev/null || true)
    [ -n "$channel" ] || channel=$(rustup show active-toolchain | cut -d' ' -f1)
    case $(cat "$cache/wasm-toolchain" 2>/dev/null) in
    rustup)
        if rustup target list --installed --toolchain "$channel" 2>/dev/null | grep -qx wasm32-unknown-unknown; then return; fi
        ;;
    debian-web) if [ -x "$debian_web/bin/rustc" ]; then return; fi ;;
    esac

    if ! rustup target list --installed --toolchain "$channel" >/dev/null 2>&1; then
        step "Rust $channel" rustup toolchain install --profile minimal --no-self-update "$channel" ||
            fail "Rust $channel could not be installed"
    fi
    if step "wasm32 target of Rust $channel (can take a minute)" rustup target add --toolchain "$channel" wasm32-unknown-unknown; then
        echo rustup >"$cache/wasm-toolchain"
        return
    fi
    web="rustc-web cargo-web rust-web-src"
    may_install || fail "no wasm32 target: 'rustup target add wasm32-unknown-unknown' failed (see $log), and Debian 12's $web may not be installed"
    step "package lists" apt_update || true
    # shellcheck disable=SC2086
    step "instead, Debian's compiler: $web" apt_install $web || fail "neither rustup nor Debian gives a wasm32 target"
    step "linking it as toolchain debian-web" link_debian_web || fail "Debian's compiler could not be linked"
    echo debian-web >"$cache/wasm-toolchain"
}

# --- main ---------------------------------------------------------------------------------------------------------------
find_missing
if [ -n "$packages$qemu" ]; then
    if has flock; then # two runs at once would both install
        exec 9>"$cache/setup.lock"
        flock -w 1800 9 || fail "another setup has been running for half an hour"
        find_missing
    fi
    [ -z "$packages$qemu" ] || install_packages
fi
rust_for_the_browser
say "all there for '$profile' (wasm32 by $(cat "$cache/wasm-toolchain"))"
