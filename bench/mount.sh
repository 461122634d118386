#!/bin/bash
# Throughput of `e2dax mount` beside fuse2fs and the kernel's loop mount, from one run on one machine.
#
#   bench/mount.sh [E2DAX]      E2DAX: the command, target/release/e2dax where it is not given
#   BENCH_ROWS='read names'     only these of: write read randread randwrite names
#   BENCH_DRIVERS=e2dax         only these of: e2dax fuse2fs kernel
#   BENCH_OPTIONS=...           what is put behind -o of e2dax
#
# Needs root, fio, fuse2fs and python3. Each driver gets a fresh image of 1 GiB in DIR (BENCH_DIR, else /dev/shm).
# Caches are dropped before each reading job, so that the driver is asked and not the page cache. Prints one line for
# each job: the three figures, ours over fuse2fs, and ours over the kernel.
set -euo pipefail
e2dax=$(realpath "${1:-target/release/e2dax}")
dir=$(mktemp -d "${BENCH_DIR:-/dev/shm}/e2dax-bench-XXXXXX")
files=${BENCH_FILES:-20000}
size=${BENCH_SIZE:-400m}
rows=" ${BENCH_ROWS:-write read randread randwrite names} "
read -r -a drivers <<<"${BENCH_DRIVERS:-e2dax fuse2fs kernel}"
declare -A figure
cleanup() { umount -l "$dir"/mnt 2>/dev/null || true; rm -rf "$dir"; }
trap cleanup EXIT
mkdir "$dir/mnt"

up() {
    case $1 in
        e2dax) "$e2dax" mount "$dir/image" "$dir/mnt" -o "${BENCH_OPTIONS:-defaults}" ;;
        fuse2fs) fuse2fs "$dir/image" "$dir/mnt" -o fakeroot ;;
        kernel) mount -t ext2 -o loop "$dir/image" "$dir/mnt" ;;
    esac
}
down() {
    umount "$dir/mnt"
    # The processes behind a FUSE mount close the image after the mount is gone.
    while fuser "$dir/image" >/dev/null 2>&1; do sleep 0.05; done
}
drop() { sync; echo 3 >/proc/sys/vm/drop_caches; }
wanted() { [[ $rows == *" $1 "* ]]; }

# fio job: bytes per second of the job named $2, of reads or writes.
job() {
    local driver=$1 name=$2 kind=$3
    shift 3
    figure[$driver.$name]=$(fio --name="$name" --filename="$dir/mnt/data" --size="$size" --ioengine=psync \
        --output-format=json --end_fsync=1 "$@" |
        python3 -c "import json,sys; t=sys.stdin.read(); j=json.loads(t[t.index('{'):]); print(j['jobs'][0]['$kind']['bw_bytes'])")
}

names() {
    python3 - "$dir/mnt/names" "$files" <<'P'
import os, sys, time
folder, count = sys.argv[1], int(sys.argv[2])
os.mkdir(folder)
def per_second(work):
    begin = time.monotonic()
    for n in range(count): work(f"{folder}/file-{n}")
    return count / (time.monotonic() - begin)
create = per_second(lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY)))
open("/proc/sys/vm/drop_caches", "w").write("2")
stat = per_second(os.stat)
unlink = per_second(os.unlink)
print(create, stat, unlink)
P
}

for driver in "${drivers[@]}"; do
    rm -f "$dir/image"
    mke2fs -q -F -t ext2 -b 4096 "$dir/image" 1G
    up "$driver"
    # The other jobs of fio need the file.
    if wanted write || wanted read || wanted randread || wanted randwrite; then
        job "$driver" "sequential write" write --rw=write --bs=1m
    fi
    if wanted read; then
        drop
        job "$driver" "sequential read" read --rw=read --bs=1m
    fi
    if wanted randread; then
        drop
        job "$driver" "random read 4k" read --rw=randread --bs=4k --runtime=10 --time_based=0 --io_size=100m
    fi
    if wanted randwrite; then
        drop
        job "$driver" "random write 4k" write --rw=randwrite --bs=4k --io_size=100m
    fi
    rm -f "$dir/mnt/data"
    if wanted names; then
        read -r c s u < <(names)
        figure[$driver.create]=$c figure[$driver.stat]=$s figure[$driver.unlink]=$u
    fi
    down
    e2fsck -fn "$dir/image" >"$dir/e2fsck" 2>&1 || { echo "$driver: e2fsck"; cat "$dir/e2fsck"; }
done

printf '%-18s %14s %14s %14s %9s %9s\n' job e2dax fuse2fs kernel /fuse2fs /kernel
for name in "sequential write" "sequential read" "random write 4k" "random read 4k" create stat unlink; do
    python3 -c '
import sys
name, figures = sys.argv[1], [float(figure) if figure else None for figure in sys.argv[2:]]
if any(figures):
    unit = (lambda x: f"{x / 1e6:10.0f} MB/s") if " " in name else (lambda x: f"{x:12.0f} /s")
    show = lambda x: unit(x) if x else f"{chr(45):>15}"
    over = lambda a, b: f"{a / b:9.2f}" if a and b else f"{chr(45):>9}"
    a, b, c = figures
    print(f"{name:18} {show(a)} {show(b)} {show(c)} {over(a, b)} {over(a, c)}")
' "$name" "${figure[e2dax.$name]:-}" "${figure[fuse2fs.$name]:-}" "${figure[kernel.$name]:-}"
done
