#!/bin/sh
# Boots a small Linux from what `e2dax serve` serves, by QEMU without KVM: nothing of it is in an image that QEMU opens.
#
#   boot.sh E2DAX KERNEL MODULES DIR
#
# KERNEL is a vmlinuz, MODULES its /lib/modules/VERSION (Debian's linux-image-cloud-amd64 has both), DIR an empty folder.
# Twice: from an image, which the guest writes to under load, with fsync; and from a directory, without an image, read-only.
# Needs qemu-system-x86_64, cpio and a static busybox. What goes wrong is said, and the exit code is not 0.
set -eu
e2dax=$1 kernel=$2 modules=$3 dir=$4
busybox=$(command -v busybox)

root=$dir/root

# Runs a guest on $uri until it says $3 or ends; its root is mounted as $1 says, its disk read-only or not as $2 does.
guest() {
    qemu-system-x86_64 -machine q35 -m 256M -display none -monitor none -no-reboot -serial "file:$dir/serial" \
        -kernel "$kernel" -initrd "$dir/initrd" -append "console=ttyS0 quiet panic=-1 e2dax=$1" \
        -drive "format=raw,if=virtio,cache=writeback,discard=unmap,readonly=$2,file=$uri" &
    machine=$!
    waited=0
    while kill -0 $machine 2>/dev/null && ! grep -q "$3" "$dir/serial" 2>/dev/null; do
        sleep 0.2
        waited=$((waited + 1))
        [ $waited -lt 3000 ] || { echo "the guest does not end"; kill -9 $machine; exit 1; }
    done
    sleep 0.5
    kill -9 $machine 2>/dev/null || true
    wait $machine 2>/dev/null || true
    if grep -a 'GUEST FAILED\|Kernel panic\|I/O error' "$dir/serial"; then exit 1; fi
}
sums() { tr -d '\r' <"$dir/serial" | sed -n 's/^GUEST \([0-9a-f]\{32\}\)/\1/p'; }
expected() { (cd "$root" && find data -type f | sort | sed 's|^|/|' | while read -r file; do md5sum ".$file" | sed "s|  .*|  $file|"; done); }

case ${5:-} in
    write)
        guest rw off 'GUEST fsync has returned'
        exit 0
        ;;
    read)
        guest ro on 'GUEST done'
        exit 0
        ;;
esac

# ---- the root: busybox, an init, and files of some sizes ----
mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/data/deep/er"
cp "$busybox" "$root/bin/busybox"
for name in sh mount cat sync md5sum find sort dd cp rm mkdir poweroff cmp sleep; do ln -s busybox "$root/bin/$name"; done
for size in 0 1 4095 4096 70000 3000000; do head -c $size /dev/urandom >"$root/data/$size"; done
head -c 20000 /dev/urandom >"$root/data/deep/er/file"
ln -s ../4096 "$root/data/deep/link"
ln "$root/data/70000" "$root/data/deep/same"
cat >"$root/init" <<'I'
#!/bin/sh
mount -t proc none /proc
mount -t devtmpfs none /dev
echo "GUEST root $(cat /proc/mounts | while read -r dev at kind rest; do [ "$at" = / ] && echo "$dev $kind ${rest%%,*}"; done)"
find /data -type f | sort | while read -r file; do echo "GUEST $(md5sum "$file")"; done
if [ "$(cat /job)" = write ]; then
    for job in 1 2 3 4; do
        (
            mkdir /made$job
            for nr in 1 2 3 4 5 6 7 8; do
                cp /data/3000000 /made$job/$nr && cmp /data/3000000 /made$job/$nr || echo "GUEST FAILED copy"
                dd if=/data/70000 of=/made$job/small$nr conv=fsync 2>/dev/null || echo "GUEST FAILED fsync"
                [ $((nr % 2)) = 0 ] || rm /made$job/$nr
            done
        ) &
    done
    wait
    sync
    dd if=/data/3000000 of=/last bs=4k conv=fsync 2>/dev/null
    echo "GUEST fsync has returned"
    # Nothing is unmounted: the plug is pulled.
    while :; do sleep 1; done
fi
echo "GUEST done"
poweroff -f
I
chmod +x "$root/init"

# ---- the initial RAM disk: drivers, and on to the root ----
early=$dir/early
mkdir -p "$early/bin" "$early/lib" "$early/root" "$early/dev"
cp "$busybox" "$early/bin/busybox"
order='virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk crc16 crc32c_generic libcrc32c mbcache jbd2 ext4'
for name in $order; do
    # What is not there is built in.
    found=$(find "$modules" -name "$name.ko*" | head -n 1)
    case $found in
        '') ;;
        *.xz) xz -dc "$found" >"$early/lib/$name.ko" ;;
        *.zst) zstd -qdc "$found" >"$early/lib/$name.ko" ;;
        *) cp "$found" "$early/lib/$name.ko" ;;
    esac
done
cat >"$early/init" <<I
#!/bin/busybox sh
b=/bin/busybox
\$b mkdir /proc
\$b mount -t proc none /proc
for name in $order; do [ ! -e /lib/\$name.ko ] || \$b insmod /lib/\$name.ko; done
\$b mount -t devtmpfs none /dev
for try in 1 2 3 4 5 6 7 8 9; do [ -e /dev/vda ] && break; \$b sleep 1; done
\$b mount -t ext2 -o \$(\$b sed 's/.*e2dax=\([a-z]*\).*/\1/' /proc/cmdline) /dev/vda /root || echo "GUEST FAILED mount"
exec \$b switch_root /root /init
I
chmod +x "$early/init"
(cd "$early" && find . | cpio -o -H newc --quiet >"$dir/initrd")

again() { printf "'%s' '%s' '%s' '%s' '%s' %s" "$0" "$e2dax" "$kernel" "$modules" "$dir" "$1"; }
expected >"$dir/expected"

# ---- from an image, written under load; then the machine is gone ----
echo write >"$root/job"
"$e2dax" mkfs "$dir/disk.img" --from "$root" --size 128M --quiet
"$e2dax" serve "$dir/disk.img" --run "uri=\$uri; export uri; $(again write)"
grep -a '^GUEST root' "$dir/serial"
sums | cmp - "$dir/expected"
# The plug was pulled: what sync and fsync had returned for is there, and what Linux left is mended without a question.
e2fsck -p "$dir/disk.img" >"$dir/preen" || [ $? -eq 1 ] || { cat "$dir/preen"; exit 1; }
e2fsck -fn "$dir/disk.img" >"$dir/fsck" 2>&1 || { cat "$dir/fsck"; exit 1; }
"$e2dax" cat "$dir/disk.img:/last" | cmp - "$root/data/3000000"
for job in 1 2 3 4; do
    for nr in 1 2 3 4 5 6 7 8; do
        "$e2dax" cat "$dir/disk.img:/made$job/small$nr" | cmp - "$root/data/70000"
    done
done
echo "an image: the guest's files are as they were, and what it wrote is there"

# ---- from a directory, without an image ----
echo read >"$root/job"
rm "$dir/serial"
"$e2dax" serve --from "$root" --read-only --run "uri=\$uri; export uri; $(again read)"
sums | cmp - "$dir/expected"
echo "a directory: the guest's files are those of the host"
