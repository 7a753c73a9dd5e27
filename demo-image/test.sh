#!/bin/bash
# Boots the demo image under emulation with a NoCloud seed and checks what README.md promises.
#
#   demo-image/test.sh [IMAGE.qcow2]     without an argument it builds the image in the cache first
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

here=$(cd "$(dirname "$0")" && pwd)
image=${1:-}
if [ -z "$image" ]; then
    image=${VIMANA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vimana}/demo-image/demo.qcow2
    "$here/build.sh" "$image"
fi
image=$(realpath "$image")

work=$(mktemp -d "${TMPDIR:-/tmp}/vimana-demo-test.XXXXXX")
qemu=
cleanup() {
    [ -z "$qemu" ] || kill -KILL "$(cat "$work/pid")" "$qemu" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

now() { echo $(($(date +%s%N) / 1000000)); }
seconds() { printf '%d.%02d s' $(($1 / 1000)) $(($1 % 1000 / 10)); }
fail() {
    echo "FAIL: $*" >&2
    [ ! -s "$work/serial" ] || { echo "--- serial console" >&2; cat -v "$work/serial" | tail -n 40 >&2; }
    exit 1
}

# wait_for FILE PATTERN SECONDS: until the file has a line (or the start of one) like that.
wait_for() {
    local end=$(($(now) + $3 * 1000))
    until grep -aq -- "$2" "$1"; do
        [ "$(now)" -lt $end ] || fail "no '$2' within $3 s"
        kill -0 "$qemu" 2>/dev/null || fail "QEMU ended while waiting for '$2'"
        sleep 0.05
    done
}

# gone_within SECONDS: whether QEMU has ended by itself.
gone_within() {
    local end=$(($(now) + $1 * 1000))
    while kill -0 "$qemu" 2>/dev/null; do
        [ "$(now)" -lt $end ] || return 1
        sleep 0.02
    done
    qemu=
}

# Input by fifos that are held open here, output into files: nothing but bash and QEMU is needed.
mkfifo "$work/serial.in" "$work/qmp.in"
exec 3<>"$work/serial.in" 4<>"$work/qmp.in"

start() {
    : >"$work/serial"
    : >"$work/qmp"
    started=$(now)
    timeout -k 5 180 qemu-system-x86_64 -name demo-image-test -pidfile "$work/pid" -accel tcg -machine "${1:-pc-q35-7.2}" -m 128 -smp 1 \
        -nodefaults -no-user-config -display none \
        -drive "file=$work/disk.qcow2,format=qcow2,if=none,id=disk,discard=unmap" -device virtio-blk-pci,drive=disk,bootindex=0 \
        -drive "file=$work/seed,format=raw,if=none,id=seed,readonly=on" -device virtio-blk-pci,drive=seed \
        -chardev "file,id=serial,path=$work/serial,input-path=$work/serial.in" -serial chardev:serial \
        -chardev "file,id=qmp,path=$work/qmp,input-path=$work/qmp.in" -mon chardev=qmp,mode=control &
    qemu=$! # of timeout, which ends with QEMU and ends QEMU if this script should be killed
    disown "$qemu"
    wait_for "$work/serial" 'web-1 login: root (automatic login)' 120
    login=$(($(now) - started))
    wait_for "$work/serial" 'root@web-1:~# ' 20
}

power_button() {
    printf '{"execute":"qmp_capabilities"}\n{"execute":"system_powerdown"}\n' >&4
    pressed=$(now)
    gone_within 10 || fail "the power button does not stop the guest"
    off=$(($(now) - pressed))
}

mkdir "$work/nocloud"
cat >"$work/nocloud/meta-data" <<'END'
instance-id: "vm_test"
local-hostname: "web-1"
public-keys: ["ssh-ed25519 AAAAtest me@laptop"]
END
cat >"$work/nocloud/user-data" <<'END'
#cloud-config
users:
  - default
  - name: alice
    ssh_authorized_keys:
      - ssh-ed25519 AAAAother alice@laptop
something_unknown: {a: [1, 2]}
runcmd:
  - echo "user-data ran once"
  - [echo, listed, "a  b"]
END
truncate -s 1M "$work/seed"
mkfs.vfat -n CIDATA "$work/seed" >/dev/null
mcopy -i "$work/seed" "$work/nocloud/meta-data" "$work/nocloud/user-data" ::/
qemu-img create -q -f qcow2 -b "$image" -F qcow2 "$work/disk.qcow2" 1G

start
first=$login
grep -aq '^vimana-demo ready boots=1' "$work/serial" || fail "no ready line, or not the first boot"
wait_for "$work/serial" '^user-data ran once' 10
wait_for "$work/serial" '^listed a  b' 10
echo 'uname -a; hostname; cat ~alice/.ssh/authorized_keys; stat -c "%a %U" ~alice/.ssh/authorized_keys; echo "sum $((20 + 3))"' >&3
wait_for "$work/serial" '^sum 23' 10
grep -aq '^Linux web-1 .* x86_64 GNU/Linux' "$work/serial" || fail "uname -a"
grep -aq '^web-1.$' "$work/serial" || fail "hostname"
grep -aq '^ssh-ed25519 AAAAtest me@laptop' "$work/serial" || fail "the key of meta-data"
grep -aq '^ssh-ed25519 AAAAother alice@laptop' "$work/serial" || fail "the key of user-data"
grep -aq '^600 alice' "$work/serial" || fail "the mode or owner of authorized_keys"
echo 'exit' >&3
wait_for "$work/serial" 'root@web-1:~# exit' 10
: >"$work/serial" # QEMU goes on at its old offset; grep -a does not mind the hole
wait_for "$work/serial" 'web-1 login: root (automatic login)' 20

echo 'echo kept >/root/kept; sync; echo "written $((1 + 1))"' >&3
wait_for "$work/serial" '^written 2' 10
kill -KILL "$(cat "$work/pid")"
gone_within 5 || fail "QEMU outlives SIGKILL"

start q35
grep -aq '^vimana-demo ready boots=2' "$work/serial" || fail "the disk did not survive the kill"
if grep -aq 'user-data ran once' "$work/serial"; then fail "user-data ran a second time"; fi
echo 'cat /root/kept' >&3
wait_for "$work/serial" '^kept' 10
power_button

echo "ok: login line after $(seconds "$first"), again after a kill $(seconds "$login"), off $(seconds "$off") after the power button (TCG, 128 MiB)"
