#!/bin/bash
# A hundred changes by a script in one process: e2dax shell -f beside debugfs -w -f, on copies of one fresh image. Rounds
# alternate; printed is the median of each, and of the ratios of the pairs.
#
#   bench/shell.sh E2DAX [ROUNDS] [OPTION...]      options of e2dax shell, as --durability relaxed
set -euo pipefail
e2dax=$(realpath "${1:?usage: shell.sh E2DAX [ROUNDS]}")
rounds=${2:-11}
options=("${@:3}")
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
head -c 3000 /dev/urandom >small
mke2fs -q -F -t ext2 -b 4096 empty.img 64M
for n in $(seq 100); do echo "cp small :/f$n"; done >fill
cp empty.img filled.img
"$e2dax" shell filled.img -f fill

# NAME IMAGE: a hundred commands for each, $n their number.
job() {
    local name=$1 image=$2 ours=$3 theirs=$4
    for n in $(seq 100); do eval "echo \"$ours\""; done >ours
    for n in $(seq 100); do eval "echo \"$theirs\""; done >theirs
    for round in $(seq "$rounds"); do
        cp "$image" a.img
        cp "$image" b.img
        sync a.img b.img
        begin=$(date +%s%N)
        "$e2dax" shell "${options[@]}" a.img -f ours >/dev/null
        middle=$(date +%s%N)
        debugfs -w -f theirs b.img >/dev/null 2>&1
        end=$(date +%s%N)
        echo "$((middle - begin)) $((end - middle))"
    done >times
    e2fsck -fn a.img >check 2>&1 || { cat check; exit 1; }
    awk -v name="$name" '
        { a[NR] = $1; b[NR] = $2; r[NR] = $1 / $2 }
        function median(of,   i, j, t) {
            for (i = 1; i <= NR; i++) for (j = i + 1; j <= NR; j++) if (of[j] < of[i]) { t = of[i]; of[i] = of[j]; of[j] = t }
            return of[int((NR + 1) / 2)]
        }
        END { printf "%-8s %7.1f ms %7.1f ms  %5.2f\n", name, median(a) / 1e6, median(b) / 1e6, median(r) }' times
}
echo "100 of        e2dax    debugfs  ratio"
job mkdir empty.img 'mkdir /d$n' 'mkdir /d$n'
job cp empty.img 'cp small :/n$n' 'write small n$n'
job rm filled.img 'rm /f$n' 'rm /f$n'
job chmod filled.img 'chmod 600 /f$n' 'sif /f$n mode 0100600'
job ln filled.img 'ln /f$n /l$n' 'ln /f$n /l$n'
job poke filled.img 'poke inode:/f$n uid $n' 'sif /f$n uid $n'
job sif filled.img 'sif <$((n + 11))> uid $n' 'sif <$((n + 11))> uid $n'
