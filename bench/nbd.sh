#!/bin/bash
# The NBD server of `e2dax serve` beside qemu-nbd and nbdkit, on the same image, from one run on one machine.
#
#   bench/nbd.sh [E2DAX]        E2DAX: the command, target/release/e2dax where it is not given
#   BENCH_SERVERS='e2dax qemu'  only these of: e2dax qemu nbdkit
#   BENCH_ROUNDS=1              how often each server has its turn; the median counts (3)
#   BENCH_SECONDS=1             how long each job runs (3)
#
# Needs fio with the engine nbd, qemu-nbd, nbdkit and python3. The image is a file of 1 GiB in DIR (BENCH_DIR, else /dev/shm)
# that has all of its blocks, served on a Unix socket. One line for each job: MB/s for requests of 128 KiB in order, requests a
# second for those of 4 KiB at random, with one and with sixteen under way; the last job writes and flushes in turn.
set -euo pipefail
e2dax=$(realpath "${1:-target/release/e2dax}")
dir=$(mktemp -d "${BENCH_DIR:-/dev/shm}/e2dax-nbd-XXXXXX")
read -r -a servers <<<"${BENCH_SERVERS:-e2dax qemu nbdkit}"
server=
stop() { [ -z "$server" ] || { kill "$server" && wait "$server" || true; } 2>/dev/null; server=; }
cleanup() { stop; rm -rf "$dir"; }
trap cleanup EXIT
: >"$dir/figures"

start() {
    rm -f "$dir/s"
    case $1 in
        e2dax) "$e2dax" serve "$dir/image" --socket "$dir/s" >/dev/null & ;;
        qemu) qemu-nbd -t -e 8 -f raw -k "$dir/s" "$dir/image" & ;;
        nbdkit) nbdkit -f -U "$dir/s" file "$dir/image" & ;;
    esac
    server=$!
    while ! nbdinfo --size "nbd+unix:///?socket=$dir/s" >/dev/null 2>&1; do sleep 0.05; done
}

# fio job: server, name, what counts, arguments.
job() {
    local server=$1 name=$2 counts=$3
    shift 3
    fio --name=job --ioengine=nbd --uri="nbd+unix:///?socket=$dir/s" --size=1g --time_based --output-format=json \
        --runtime="${BENCH_SECONDS:-3}" "$@" 2>/dev/null |
        python3 -c "
import json, sys
text = sys.stdin.read()
job = json.loads(text[text.index('{'):])['jobs'][0]
rate = max((job['read'], job['write']), key=lambda side: side['bw_bytes'])
figure = rate['bw_bytes'] / 1e6 if '$counts' == 'MB/s' else rate['iops']
print('$server', '$name', '$counts', round(figure), sep='\t')" >>"$dir/figures"
}

head -c 1G /dev/urandom >"$dir/image"
for _ in $(seq "${BENCH_ROUNDS:-3}"); do
    for each in "${servers[@]}"; do
        start "$each"
        for depth in 1 16; do
            job "$each" "read in order, $depth" MB/s --rw=read --bs=128k --iodepth=$depth
            job "$each" "read at random, $depth" 1/s --rw=randread --bs=4k --iodepth=$depth
            job "$each" "write in order, $depth" MB/s --rw=write --bs=128k --iodepth=$depth
            job "$each" "write at random, $depth" 1/s --rw=randwrite --bs=4k --iodepth=$depth
        done
        job "$each" "write and flush, 1" 1/s --rw=randwrite --bs=4k --iodepth=1 --fsync=1
        stop
    done
done
python3 - "$dir/figures" "${servers[@]}" <<'P'
import statistics, sys
figures, names = {}, []
for line in open(sys.argv[1]):
    server, name, counts, figure = line.rstrip('\n').split('\t')
    if (name, counts) not in names: names.append((name, counts))
    figures.setdefault((name, server), []).append(int(figure))
servers = sys.argv[2:]
print('job'.ljust(20), 'unit', *(server.rjust(10) for server in servers), '  e2dax over the others')
for name, counts in names:
    medians = [statistics.median(figures[name, server]) for server in servers]
    ratios = [f'{medians[0] / max(other, 1):.2f}' for other in medians[1:]]
    print(name.ljust(20), counts, *(f'{round(median):>10}' for median in medians), '  ', *ratios)
P
