#!/bin/bash
# Checks, repairs and resizes images with e2dax and with e2fsprogs, by turns, and prints times and peak memory with their
# ratios. The best of ROUNDS runs each, on a copy of its own that is on the disk before the clock runs. Times are those of the
# whole process, its start included.
#
#   bench/keep.sh E2DAX [TREE]
#
# TREE is what the images hold; without it, the system's headers and documents. ROUNDS is 5 unless it is set. LONG=1 adds
# a sparse image of 1 TiB.
set -euo pipefail
e2dax=$(realpath "${1:?usage: keep.sh E2DAX [TREE]}")
trees=("${2:-/usr/include}")
[ -n "${2:-}" ] || trees+=(/usr/share/doc)
rounds=${ROUNDS:-5}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$PATH:/usr/sbin:/sbin

mkdir "$work/tree"
for tree in "${trees[@]}"; do cp -a "$tree" "$work/tree/"; done
image() {
    truncate -s "$2" "$work/$1"
    mke2fs -q -F -t ext2 "${@:3}" -d "$work/tree" "$work/$1"
}
# Broken as a bad disk does it: bitmaps and counts of groups, a count of links, a directory without its name.
damage() {
    cp --sparse=always "$work/$1" "$work/$2"
    debugfs -w -f - "$work/$2" >/dev/null 2>&1 <<-END
	ssv free_blocks_count 5
	set_bg 0 free_blocks_count 1
	sif / links_count 99
	freeb 20000 3000
	unlink /lost+found
	END
}
# And the inodes of the directories in the root are gone, so that what they held has no name any more.
lose() {
    damage "$1" "$2"
    local directory
    for directory in "$work/tree"/*/; do
        debugfs -w -R "clri /$(basename "$directory")" "$work/$2" >/dev/null 2>&1
    done
}

# Prints "seconds KiB" of one run on a fresh copy; what the program says and its code are not of interest here.
once() {
    local from=$1 size=$2
    shift 2
    cp --sparse=always "$work/$from" "$work/run.img"
    [ "$size" = - ] || truncate -s "$size" "$work/run.img"
    sync "$work/run.img"
    local begin=$EPOCHREALTIME end memory
    /usr/bin/env time -q -f '%M' "${@//IMG/$work/run.img}" >/dev/null 2>"$work/log" || true
    end=$EPOCHREALTIME
    memory=$(tail -n 1 "$work/log")
    awk -v begin="$begin" -v end="$end" -v memory="$memory" 'BEGIN { printf "%.4f %d\n", end - begin, memory }'
}
# row NAME FROM SIZE OURS -- THEIRS
row() {
    local name=$1 from=$2 size=$3 ours=() theirs=() best_o= best_t= line
    shift 3
    while [ "$1" != -- ]; do ours+=("$1"); shift; done
    shift
    theirs=("$@")
    for _ in $(seq "$rounds"); do
        line=$(once "$from" "$size" "$e2dax" "${ours[@]}")
        if [ -z "$best_o" ] || awk -v a="${line% *}" -v b="${best_o% *}" 'BEGIN { exit !(a < b) }'; then best_o=$line; fi
        line=$(once "$from" "$size" "${theirs[@]}")
        if [ -z "$best_t" ] || awk -v a="${line% *}" -v b="${best_t% *}" 'BEGIN { exit !(a < b) }'; then best_t=$line; fi
    done
    awk -v name="$name" -v s="${best_o% *}" -v m="${best_o#* }" -v ts="${best_t% *}" -v tm="${best_t#* }" \
        'BEGIN { printf "%-34s %6.3f s %7.1f MiB   %6.3f s %7.1f MiB   %5.1f x\n", name, s, m / 1024, ts, tm / 1024, ts / s }'
}

image base.img 2G
image base8.img 8G
damage base.img broken.img
damage base8.img broken8.img
lose base.img lost.img
lose base8.img lost8.img
echo "$(find "$work/tree" | wc -l) files, $(du -sm "$work/tree" | cut -f1) MiB; the best of $rounds"
printf '%-34s %20s   %20s\n' '' e2dax e2fsprogs
row 'check, 2 GiB' base.img - check -n IMG -- e2fsck -fn IMG
row 'repair, 2 GiB' broken.img - check -y IMG -- e2fsck -fy IMG
row 'repair with much lost, 2 GiB' lost.img - check -y IMG -- e2fsck -fy IMG
row 'check, 8 GiB' base8.img - check -n IMG -- e2fsck -fn IMG
row 'repair, 8 GiB' broken8.img - check -y IMG -- e2fsck -fy IMG
row 'repair with much lost, 8 GiB' lost8.img - check -y IMG -- e2fsck -fy IMG
row 'grow, 2 to 8 GiB' base.img 8G resize IMG 8G -- resize2fs -f IMG 8G
row 'shrink, 8 to 2 GiB' base8.img - resize IMG 2G -- resize2fs -f IMG 2G
row 'shrink as far as it goes, 2 GiB' base.img - resize --minimum IMG -- resize2fs -f -M IMG
if [ -n "${LONG:-}" ]; then
    rounds=1
    # Few inodes, so that it is not their tables which take the time.
    image base1t.img 1T -i 1048576
    damage base1t.img broken1t.img
    row 'check, 1 TiB' base1t.img - check -n IMG -- e2fsck -fn IMG
    row 'repair, 1 TiB' broken1t.img - check -y IMG -- e2fsck -fy IMG
    row 'grow, 2 GiB to 1 TiB' base.img 1T resize IMG 1T -- resize2fs -f IMG 1T
fi
