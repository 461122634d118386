#!/bin/bash
# Throughput of `e2dax mount` beside fuse2fs and the kernel's loop mount, from one run on one machine.
#
#   bench/mount.sh [E2DAX]      E2DAX: the command, target/release/e2dax where it is not given
#   BENCH_ROWS='read names'     only these of: write read randread randwrite names
#   BENCH_DRIVERS=e2dax         only these of: e2dax direct fuse2fs kernel (direct is e2dax with -o direct_io)
#   BENCH_OPTIONS=...           what is put behind -o of e2dax
#   BENCH_ROUNDS=1              how often each driver has its turn; the median counts (3)
#   BENCH_WITHIN=300            seconds that one job may take before all is given up
#
# Needs root, fio, fuse2fs and python3. Each driver gets a fresh image of 1 GiB in DIR (BENCH_DIR, else /dev/shm) that
# has all of its blocks, so that nobody waits for the host's memory. The kernel forgets the file before each job, so that
# the driver is asked and not the page cache; not by fio, which takes the time of that for a part of the job. Prints one
# line for each job: the figures, and those of e2dax, without and with direct_io, over fuse2fs's and the kernel's.
set -euo pipefail
e2dax=$(realpath "${1:-target/release/e2dax}")
dir=$(mktemp -d "${BENCH_DIR:-/dev/shm}/e2dax-bench-XXXXXX")
files=${BENCH_FILES:-20000}
size=${BENCH_SIZE:-800m}
within=${BENCH_WITHIN:-300}
rows=" ${BENCH_ROWS:-write read randread randwrite names} "
read -r -a drivers <<<"${BENCH_DRIVERS:-e2dax direct fuse2fs kernel}"
cleanup() { umount -l "$dir"/mnt 2>/dev/null || true; rm -rf "$dir"; }
trap cleanup EXIT
mkdir "$dir/mnt"
: >"$dir/figures"

up() {
    case $1 in
        e2dax) "$e2dax" mount "$dir/image" "$dir/mnt" -o "${BENCH_OPTIONS:-defaults}" ;;
        direct) "$e2dax" mount "$dir/image" "$dir/mnt" -o "direct_io,${BENCH_OPTIONS:-defaults}" ;;
        fuse2fs) fuse2fs "$dir/image" "$dir/mnt" -o fakeroot ;;
        kernel) mount -t ext2 -o loop "$dir/image" "$dir/mnt" ;;
    esac
}
down() {
    umount "$dir/mnt"
    # The processes behind a FUSE mount close the image after the mount is gone.
    for ((n = 0; n < 1200; n++)); do
        fuser "$dir/image" >/dev/null 2>&1 || return 0
        sleep 0.05
    done
    echo "$dir/image stays open after umount" >&2
    return 1
}
wanted() { [[ $rows == *" $1 "* ]]; }

# Has the kernel forget the pages of the file, if there is one.
forget() {
    python3 - "$dir/mnt/data" <<'P'
import os, sys
if os.path.exists(sys.argv[1]):
    file = os.open(sys.argv[1], os.O_RDWR)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
P
}

# fio job of driver $1: bytes per second of the job named $2, of reads or writes.
job() {
    local driver=$1 name=$2 kind=$3
    shift 3
    forget
    timeout "$within" fio --name="$name" --filename="$dir/mnt/data" --size="$size" --ioengine=psync --invalidate=0 \
        --output-format=json --end_fsync=1 "$@" |
        python3 -c "
import json, sys
text = sys.stdin.read()
figure = json.loads(text[text.index('{'):])['jobs'][0]['$kind']['bw_bytes']
print('$driver', '$name', figure, sep='\t')" >>"$dir/figures"
}

names() {
    timeout "$within" python3 - "$dir/mnt/names" "$files" "$1" <<'P' >>"$dir/figures"
import os, sys, time
folder, count, driver = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.mkdir(folder)
def row(name, work):
    begin = time.monotonic()
    for n in range(count): work(f"{folder}/file-{n}")
    print(driver, name, count / (time.monotonic() - begin), sep="\t")
row("create", lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)))
open("/proc/sys/vm/drop_caches", "w").write("2")
row("stat", os.stat)
row("unlink", os.unlink)
P
}

for ((round = 0; round < ${BENCH_ROUNDS:-3}; round++)); do
    for driver in "${drivers[@]}"; do
        rm -f "$dir/image"
        head -c 1G /dev/zero >"$dir/image"
        mke2fs -q -F -t ext2 -b 4096 -E nodiscard "$dir/image"
        up "$driver"
        # The other jobs of fio need the file.
        if wanted write || wanted read || wanted randread || wanted randwrite; then
            job "$driver" "sequential write" write --rw=write --bs=1m
        fi
        if wanted read; then job "$driver" "sequential read" read --rw=read --bs=1m; fi
        if wanted randread; then job "$driver" "random read 4k" read --rw=randread --bs=4k --io_size=100m; fi
        if wanted randwrite; then job "$driver" "random write 4k" write --rw=randwrite --bs=4k --io_size=100m; fi
        rm -f "$dir/mnt/data"
        if wanted names; then names "$driver"; fi
        down
        e2fsck -fn "$dir/image" >"$dir/e2fsck" 2>&1 || { echo "$driver: e2fsck"; cat "$dir/e2fsck"; }
    done
done

python3 - "$dir/figures" <<'P'
import collections, statistics, sys
figures = collections.defaultdict(list)
for line in open(sys.argv[1]):
    driver, job, figure = line.rstrip("\n").split("\t")
    figures[driver, job].append(float(figure))
middle = {key: statistics.median(values) for key, values in figures.items()}
drivers = ["e2dax", "direct", "fuse2fs", "kernel"]
ratios = [(ours, theirs) for ours in drivers[:2] for theirs in drivers[2:]]
head = [f"{driver:>14}" for driver in drivers] + [f"{ours + '/' + theirs:>15}" for ours, theirs in ratios]
print(f"{'job':16}", *head)
for job in ["sequential write", "sequential read", "random write 4k", "random read 4k", "create", "stat", "unlink"]:
    def show(driver):
        figure = middle.get((driver, job))
        if figure is None: return f"{'-':>14}"
        return f"{figure / 1e6:9.0f} MB/s" if " " in job else f"{figure:11.0f} /s"
    def over(ours, theirs):
        a, b = middle.get((ours, job)), middle.get((theirs, job))
        return f"{a / b:15.2f}" if a and b else f"{'-':>15}"
    if any(name == job for _, name in middle):
        print(f"{job:16}", *map(show, drivers), *(over(*pair) for pair in ratios))
P
