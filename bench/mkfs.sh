#!/bin/bash
# Builds an image of one tree with e2dax mkfs, mke2fs -d, genext2fs -d and tar, as an unprivileged user where root runs
# it, and prints times and peak memory as ratios to e2dax's. The best of three runs each; everything from one call.
#
#   bench/mkfs.sh E2DAX [TREE]
#
# TREE is copied first, so that all read the same warm files; without it, the system's libraries are taken.
set -euo pipefail
e2dax=$(realpath "${1:?usage: mkfs.sh E2DAX [TREE]}")
tree=${2:-/usr/lib/$(uname -m)-linux-gnu}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -m 777 "$work/out"
cp "$e2dax" "$work/e2dax"
cp -a "$tree" "$work/tree"
chmod -R a+rX "$work/tree"
size=$(( $(du -sm "$work/tree" | cut -f1) * 5 / 4 + 64 ))
files=$(( $(find "$work/tree" | wc -l) + 1000 ))
user=()
if [ "$(id -u)" = 0 ]; then user=(setpriv --reuid 65534 --regid 65534 --clear-groups); fi
PATH=$PATH:/usr/sbin:/sbin

# Prints "seconds KiB" of the best of three runs.
measure() {
    local best=
    for _ in 1 2 3; do
        rm -f "$work"/out/*
        local line
        line=$( { "${user[@]}" /usr/bin/env time -f '%e %M' "$@" >/dev/null 2>"$work/out.log" || true; tail -n 1 "$work/out.log"; } )
        if [ -z "$best" ] || awk -v a="${line% *}" -v b="${best% *}" 'BEGIN { exit !(a < b) }'; then best=$line; fi
    done
    echo "$best"
}
report() {
    local name=$1
    shift
    command -v "${1##*/}" >/dev/null || [ -x "$1" ] || { echo "$name: not installed"; return; }
    local found
    found=$(measure "$@")
    [ "$name" = "e2dax mkfs" ] && base=$found
    awk -v name="$name" -v s="${found% *}" -v m="${found#* }" -v bs="${base% *}" -v bm="${base#* }" \
        'BEGIN { printf "%-22s %6.2f s (%4.1f x)  %7.1f MiB (%4.1f x)\n", name, s, s / bs, m / 1024, m / bm }'
}
echo "$(find "$work/tree" -type f | wc -l) files, $(du -sm "$work/tree" | cut -f1) MiB"
report "e2dax mkfs" "$work/e2dax" mkfs "$work/out/e2dax.img" --from "$work/tree" --quiet
report "tar" tar cf "$work/out/tar.tar" -C "$work/tree" .
report "mke2fs -d" mke2fs -q -F -t ext2 -d "$work/tree" "$work/out/mke2fs.img" "${size}M"
report "genext2fs -d" genext2fs -B 4096 -b $((size * 256)) -N "$files" -d "$work/tree" "$work/out/genext2fs.img"
"${user[@]}" "$work/e2dax" mkfs "$work/out/e2dax.img" --force --from "$work/tree" --quiet
"${user[@]}" mke2fs -q -F -t ext2 -d "$work/tree" "$work/out/mke2fs.img" "${size}M"
for image in e2dax mke2fs; do
    echo "$image: $("$work/e2dax" dax-report --summary "$work/out/$image.img")"
done
