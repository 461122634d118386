#!/bin/bash
# Counts the instructions of the hot paths under callgrind and compares them with instructions.txt.
#
#   bench/instructions.sh            prints both, and fails where one has grown by more than 20 %
#   bench/instructions.sh --update   writes instructions.txt anew
#
# Counts are of one machine's code: another compiler or another processor's best routines may move them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
reference=$here/instructions.txt

if ! command -v valgrind >/dev/null; then
    echo "SKIPPED: no valgrind"
    exit 0
fi
export PATH=$PATH:/usr/sbin:/sbin
if ! command -v mke2fs >/dev/null; then
    echo "SKIPPED: no mke2fs"
    exit 0
fi

${CARGO:-cargo} build --quiet --release --manifest-path "$here/Cargo.toml" --bin instructions
program=${CARGO_TARGET_DIR:-$here/../target}/release/instructions
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Counts are written, and begun anew, at the edges of the one function that runs the work.
valgrind --tool=callgrind --callgrind-out-file="$work/counts" \
    --zero-before=instructions::measured --dump-after=instructions::measured \
    "$program" >"$work/rows" 2>"$work/log" || { cat "$work/log"; exit 1; }

nr=0
while read -r times name; do
    nr=$((nr + 1))
    total=$(sed -n 's/^\(totals\|summary\): //p' "$work/counts.$nr" | head -1)
    echo "$((total / times)) $name"
done <"$work/rows" >"$work/now"

if [ "${1:-}" = --update ]; then
    {
        echo "# Instructions of one call, counted by callgrind. Written by instructions.sh --update."
        cat "$work/now"
    } >"$reference"
fi

awk '
    FNR == NR { if ($1 != "#") { n = $1; sub(/^[0-9]+ /, ""); was[$0] = n } next }
    {
        n = $1; sub(/^[0-9]+ /, "")
        if (!($0 in was)) { printf "%10d %10s          %s\n", n, "new", $0; next }
        change = (n / was[$0] - 1) * 100
        mark = change > 20 ? "  GREW" : ""
        if (mark != "") bad = 1
        printf "%10d %10d %+6.1f %%  %s%s\n", n, was[$0], change, $0, mark
    }
    END { exit bad }
' "$reference" "$work/now"
