#!/bin/bash
# NBD servers beside each other: ours, qemu-nbd and nbdkit over the same image, one after the other, by qemu-img bench.
# Reads and writes, sequential (64 KiB) and random (4 KiB, a stride that visits all of the image), with one and sixteen requests
# under way. Prints the median of three runs in requests a second.
#
# Usage: bench/nbd.sh [E2DAX]; the image lies in TMPDIR.
set -euo pipefail
e2dax=${1:-target/release/e2dax}
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$folder"' EXIT
image=$folder/image
dd if=/dev/urandom of="$image" bs=1M count=256 status=none
uri="nbd+unix:///?socket=$folder/s"

serve() {
    case $1 in
    e2dax) "$e2dax" serve "$image" --socket "$folder/s" >/dev/null & ;;
    e2dax-file) "$e2dax" serve "$image" --device file --socket "$folder/s" >/dev/null & ;;
    qemu-nbd) qemu-nbd -f raw -t -e 16 -k "$folder/s" "$image" & ;;
    nbdkit) nbdkit -f -U "$folder/s" file "$image" & ;;
    esac
    server=$!
    for _ in $(seq 200); do [ -S "$folder/s" ] && break; sleep 0.02; done
}

measure() {
    for _ in 1 2 3; do
        qemu-img bench -f raw -t none "$@" "$uri" | sed -nE 's/^Run completed in ([0-9.]+) seconds.*/\1/p'
    done | sort -n | sed -n 2p
}

printf '%-12s %-10s %6s %10s %10s\n' server what depth seconds per_second
for name in e2dax e2dax-file qemu-nbd nbdkit; do
    serve "$name"
    for depth in 1 16; do
        for what in 'read_64k -s 65536 -c 8000' 'read_4k -s 4096 -S 1052672 -c 20000' \
            'write_64k -w -s 65536 -c 8000' 'write_4k -w -s 4096 -S 1052672 -c 20000'; do
            set -- $what
            label=$1 count=${!#}
            shift
            seconds=$(measure -d "$depth" "$@")
            printf '%-12s %-10s %6s %10s %10.0f\n' "$name" "$label" "$depth" "$seconds" "$(echo "$count / $seconds" | bc -l)"
        done
    done
    kill "$server"
    wait "$server" 2>/dev/null || true
    rm -f "$folder/s"
done
