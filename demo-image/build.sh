#!/bin/sh
# Builds the demo image: a small real Linux that boots in seconds even without KVM.
#
#   demo-image/build.sh OUTPUT.qcow2
#
# Needs no root and no mount. Debian packages are downloaded once, into the cache; the output is left alone
# while nothing it is made of has changed (a hash of the inputs is kept in OUTPUT.qcow2.inputs).
set -eu
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
umask 022

[ $# = 1 ] || { echo "usage: $0 OUTPUT.qcow2" >&2; exit 2; }
case $1 in /*) output=$1 ;; *) output=$PWD/$1 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
cache=${VIMANA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vimana}/demo-image

# Bump to get newer packages than the cached ones.
packages_wanted=2

inputs=$({ echo $packages_wanted; cd "$here" && find build.sh init rootfs -type f | sort | xargs sha256sum; } | sha256sum | cut -d' ' -f1)
if [ -s "$output" ] && [ "$(cat "$output.inputs" 2>/dev/null)" = "$inputs" ]; then
    echo "demo image is up to date: $output"
    exit 0
fi

fail() { echo "demo image: $*" >&2; exit 1; }

missing=
for command in dpkg-deb cpio gzip sfdisk mkfs.vfat mcopy syslinux mke2fs debugfs qemu-img; do
    command -v $command >/dev/null || missing="$missing $command"
done
mbr=
for file in /usr/lib/syslinux/mbr/mbr.bin /usr/lib/SYSLINUX/mbr.bin /usr/share/syslinux/mbr.bin; do
    [ ! -r $file ] || mbr=$file
done
[ -n "$mbr" ] || missing="$missing syslinux's-mbr.bin"
[ -z "$missing" ] || fail "missing:$missing; tools/setup.sh run installs them"

# --- packages ---------------------------------------------------------------------------------------------------
# Cached as a whole: the directory appears when all packages are in it.
packages=$cache/packages-$packages_wanted

download() { # with the apt options given
    kernel=$(apt-cache "$@" depends linux-image-cloud-amd64 2>/dev/null |
        awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
    # The guest agent, and the libraries it may need.
    agent=$(apt-cache "$@" depends --recurse --no-pre-depends --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances qemu-guest-agent 2>/dev/null | grep -E '^(qemu-guest-agent|lib|zlib)')
    [ -n "$kernel" ] && [ -n "$agent" ] &&
        (cd "$packages.new" && apt-get "$@" -q download "$kernel" busybox-static $agent)
}

if [ ! -d "$packages" ]; then
    command -v apt-get >/dev/null || fail "the guest's programs come from Debian packages: apt-get is needed"
    echo "demo image: downloading a kernel, busybox and the guest agent"
    rm -rf "$packages.new"
    mkdir -p "$packages.new"
    log=$cache/download.log
    if ! download -o APT::Sandbox::User="$(id -un 2>/dev/null || id -u)" >"$log" 2>&1; then
        # The machine's package lists are missing or old: fetch lists of our own, which needs no root.
        mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
        set -- -o Dir::State::lists="$cache/apt/lists" -o Dir::Cache="$cache/apt" -o APT::Sandbox::User="$(id -un 2>/dev/null || id -u)"
        if ! { apt-get "$@" -q update && download "$@"; } >>"$log" 2>&1; then
            cat "$log" >&2
            fail "the packages could not be downloaded"
        fi
    fi
    mv "$packages.new" "$packages"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/vimana-demo-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# Everything that would differ from build to build: times and identities.
export SOURCE_DATE_EPOCH=1735689600 E2FSPROGS_FAKE_TIME=1735689600
uuid=5b1e6e5a-0d3c-4b0e-9d53-76696d616e61

for package in "$packages"/*.deb; do
    dpkg-deb -x "$package" "$work/packages"
done
busybox=$work/packages/bin/busybox
kernel=$(echo "$work"/packages/boot/vmlinuz-*)
version=${kernel##*/vmlinuz-}
all_modules=$work/packages/lib/modules/$version
[ -d "$all_modules" ] || all_modules=$work/packages/usr/lib/modules/$version

# The shell asks the terminal where its cursor is at every prompt (ESC [6n). On a recorded or replayed serial line the
# answers come back as typed garbage, so the question is emptied. (Price: busybox's own `resize` no longer works.)
LC_ALL=C sed -i 's/\x1b\[6n\x00/\x00[6n\x00/' "$busybox"

# modules DIRECTORY NAME...: copies those modules which this kernel has not built in, and indexes them for modprobe.
modules() {
    to=$1/lib/modules/$version
    shift
    mkdir -p "$to"
    for name; do
        file=$(find "$all_modules" -name "$name.ko" -o -name "$name.ko.xz" | head -n 1)
        case $file in
        *.xz) xz -dc "$file" >"$to/$name.ko" ;;
        *.ko) cp "$file" "$to/" ;;
        *) grep -q "/$name\.ko$" "$all_modules/modules.builtin" || fail "kernel $version has no module $name" ;;
        esac
    done
    "$busybox" depmod -b "${to%/lib/modules/*}" "$version"
}

# --- initramfs: to the root disk, no further -------------------------------------------------------------------
to_disk="virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk crc16 mbcache jbd2 ext4"
initramfs=$work/initramfs
mkdir -p "$initramfs/bin" "$initramfs/dev" "$initramfs/proc" "$initramfs/root"
install -m 755 "$here/init" "$initramfs/init"
install -m 755 "$busybox" "$initramfs/bin/busybox"
for applet in sh mount modprobe findfs usleep switch_root; do
    ln -s busybox "$initramfs/bin/$applet"
done
modules "$initramfs" $to_disk
find "$initramfs" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$initramfs" && find . | sort | cpio -o -H newc -R 0:0 --reproducible --quiet) | gzip -1 -n >"$work/initrd"

# --- root disk -----------------------------------------------------------------------------------------------------
root=$work/root
mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/run" "$root/tmp" "$root/data" "$root/root" "$root/home/vimana" \
    "$root/var/log" "$root/var/lib/vimana" "$root/bin" "$root/sbin" "$root/usr/bin" "$root/usr/sbin"
chmod 1777 "$root/tmp"
chmod 700 "$root/root"
install -m 755 "$busybox" "$root/bin/busybox"
"$busybox" --list-full | while read -r applet; do
    [ -e "$root/$applet" ] || ln -s /bin/busybox "$root/$applet"
done
for directory in etc etc/acpi etc/acpi/PWRF sbin bin lib/vimana; do # our files, in place of applets where both exist
    mkdir -p "$root/$directory"
    for file in "$here/rootfs/$directory"/*; do
        [ -f "$file" ] || continue
        mode=644
        [ "$(head -c 2 "$file")" != '#!' ] || mode=755
        install -m $mode "$file" "$root/$directory/"
    done
done
for name in poweroff reboot halt; do
    ln -sf stop-now "$root/sbin/$name"
done
# QEMU's guest agent, with the libraries that its own loader finds it to need.
agent=$work/packages/usr/sbin/qemu-ga
loader=$(echo "$work"/packages/lib64/ld-linux-*.so.2 "$work"/packages/usr/lib64/ld-linux-*.so.2 | tr ' ' '\n' | grep -v '\*' | head -n 1)
places=$(find "$work/packages" -name 'lib*.so.*' -exec dirname {} + | sort -u | tr '\n' ':')
install -m 755 "$agent" "$root/usr/sbin/qemu-ga"
mkdir -p "$root/lib64"
install -m 755 "$loader" "$root/lib64/"
"$loader" --inhibit-cache --library-path "$places" --list "$agent" | awk '/=> \// { print $3 }' >"$work/libraries"
[ -s "$work/libraries" ] || fail "the libraries of the guest agent were not found"
while read -r library; do
    case $library in
    "$work"/*) install -m 644 "$library" "$root/lib/" ;;
    *) fail "the guest agent needs $library, which is in none of the packages" ;;
    esac
done <"$work/libraries"
ln -s /proc/mounts "$root/etc/mtab"
echo vimana-demo >"$root/etc/hostname"
echo "PRETTY_NAME=\"Vimana demo image (Debian kernel, busybox)\"" >"$root/etc/os-release"
printf '%s\n' root:x:0:0:root:/root:/bin/sh vimana:x:1000:1000:vimana:/home/vimana:/bin/sh >"$root/etc/passwd"
printf '%s\n' root:x:0: tty:x:5: vimana:x:1000: >"$root/etc/group"
modules "$root" $to_disk button evdev nls_cp437 nls_ascii fat vfat cdrom isofs failover net_failover virtio_net \
    virtio_balloon virtio-rng virtio_console scsi_common scsi_mod sd_mod virtio_scsi
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# --- disk: FAT partition for syslinux, kernel and initramfs; the rest is root ----------------------------------------
disk_mib=512
boot_mib=$((($(stat -c %s "$kernel") + $(stat -c %s "$work/initrd")) / 1048576 + 4))
root_mib=$((disk_mib - boot_mib - 2)) # 1 MiB before the first partition, 1 after the last

mke2fs -q -t ext4 -L vimana-root -U $uuid -E hash_seed=$uuid,lazy_itable_init=0,root_owner=0:0 -b 4096 -i 32768 -m 0 -J size=4 \
    -d "$root" "$work/root.ext4" ${root_mib}M >/dev/null
# What mke2fs takes over from the building machine: owners (without root, whoever builds) and times of change.
(cd "$root" && find . | sort | sed 's/^\.//; s/^$/\//' | while read -r file; do
    owner=0
    [ "$file" != /home/vimana ] || owner=1000
    for field in "uid $owner" "gid $owner" "ctime @$SOURCE_DATE_EPOCH" "ctime_extra 0"; do
        echo "sif \"$file\" $field"
    done
done) >"$work/inodes"
debugfs -w -f "$work/inodes" "$work/root.ext4" >"$work/debugfs.log" 2>&1 || { cat "$work/debugfs.log" >&2; fail "debugfs failed"; }

# quiet: the serial line is slow. The mitigations cost an emulated machine much and protect nobody in a demo.
cat >"$work/syslinux.cfg" <<END
DEFAULT vimana
PROMPT 0
TIMEOUT 0
LABEL vimana
  KERNEL /vmlinuz
  INITRD /initrd
  APPEND console=ttyS0,115200 quiet loglevel=3 mitigations=off nokaslr no_timer_check tsc=reliable random.trust_cpu=on cryptomgr.notests panic=10
END
boot=$work/boot.vfat
truncate -s ${boot_mib}M "$boot"
mkfs.vfat --invariant -F 16 -h 2048 -n VIMANABOOT "$boot" >/dev/null
mcopy -i "$boot" "$work/syslinux.cfg" ::/syslinux.cfg
mcopy -i "$boot" "$kernel" ::/vmlinuz
mcopy -i "$boot" "$work/initrd" ::/initrd
syslinux --install "$boot"

disk=$work/disk
truncate -s ${disk_mib}M "$disk"
sfdisk -q "$disk" <<END
label: dos
label-id: 0x76696d61
start=1MiB, size=${boot_mib}MiB, type=e, bootable
start=$((boot_mib + 1))MiB, size=${root_mib}MiB, type=83
END
dd if="$mbr" of="$disk" bs=440 count=1 conv=notrunc status=none
dd if="$boot" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.ext4" of="$disk" bs=1M seek=$((boot_mib + 1)) conv=notrunc,sparse status=none

mkdir -p "$(dirname "$output")"
qemu-img convert -f raw -O qcow2 -o lazy_refcounts=off "$disk" "$output.new"
mv "$output.new" "$output"
echo "$inputs" >"$output.inputs"
echo "demo image: $output, $(($(stat -c %s "$output") / 1000000)) MB, kernel $version"
