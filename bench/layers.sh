#!/bin/bash
# Builds an image of a container image in several layers, and of 100,000 small files, with e2dax mkfs and with what else does
# it, and prints times as ratios to e2dax's. The best of three runs each; everything from one call, in a folder in memory.
#
#   bench/layers.sh E2DAX [TREE]
#
# The layers are made of TREE, the system's libraries by default: four of about 25 MB, packed by gzip, the last with a
# whiteout for every fiftieth file below.
set -euo pipefail
e2dax=$(realpath "${1:?usage: layers.sh E2DAX [TREE]}")
tree=${2:-/usr/lib/$(uname -m)-linux-gnu}
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d -p /dev/shm)
trap 'rm -rf "$work"' EXIT
cd "$work"

best() {
    local best= line
    for _ in 1 2 3; do
        rm -rf out
        mkdir out
        line=$( { env time -f '%e %M' "$@" >/dev/null 2>log || { cat log >&2; exit 1; }; tail -n 1 log; } )
        if [ -z "$best" ] || awk -v a="${line% *}" -v b="${best% *}" 'BEGIN { exit !(a < b) }'; then best=$line; fi
    done
    echo "$best"
}
row() {
    local name=$1 found
    shift
    found=$(best "$@")
    [ "$name" = "e2dax mkfs" ] && base=$found
    awk -v name="$name" -v s="${found% *}" -v m="${found#* }" -v bs="${base% *}" \
        'BEGIN { printf "%-24s %6.2f s (%4.1f x)  %7.1f MiB\n", name, s, s / bs, m / 1024 }'
}

# ---- a container image ----
mkdir -p layout/blobs/sha256 layer
blob() { local sum; sum=$(sha256sum <"$1" | cut -d' ' -f1); cp "$1" "layout/blobs/sha256/$sum"; echo "$sum"; }
find "$tree" -type f -size -4M -printf '%s %P\n' | awk '{ size += $1; if (size < 100e6) print int(size / 25e6) " " substr($0, index($0, " ") + 1) }' >list
layers= ids= bytes=0
for nr in 0 1 2 3; do
    sed -n "s/^$nr //p" list >names
    rm -rf layer && mkdir layer
    (cd "$tree" && cpio -pdm --quiet "$work/layer" <"$work/names")
    if [ $nr = 3 ]; then
        sed -n 's/^[012] //p' list | awk 'NR % 50 == 0' | while read -r name; do
            mkdir -p "layer/$(dirname "$name")"
            : >"layer/$(dirname "$name")/.wh.$(basename "$name")"
        done
    fi
    tar --owner=0 --group=0 -C layer -cf layer.tar .
    ids="$ids,\"sha256:$(sha256sum <layer.tar | cut -d' ' -f1)\""
    gzip -6 <layer.tar >layer.tar.gz
    layers="$layers,{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$(blob layer.tar.gz)\",\"size\":$(stat -c %s layer.tar.gz)}"
    bytes=$((bytes + $(stat -c %s layer.tar)))
    mv layer.tar.gz "layer$nr.tgz"
done
echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[${ids#,}]}}" >config
config=$(blob config)
echo "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:$config\",\"size\":$(stat -c %s config)},\"layers\":[${layers#,}]}" >manifest
manifest=$(blob manifest)
echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:$manifest\",\"size\":$(stat -c %s manifest)}]}" >layout/index.json
echo '{"imageLayoutVersion":"1.0.0"}' >layout/oci-layout
cat >unpack.sh <<'EOF'
mkdir out/root
for layer in layer?.tgz; do tar -C out/root -xzf "$layer"; done
find out/root -name '.wh.*' | while read -r name; do rm -rf "${name%/.wh.*}/${name##*/.wh.}" "$name"; done
mke2fs -q -F -t ext2 -d out/root out/mke2fs.img 200M
EOF
echo "container image: 4 layers, $((bytes / 1000000)) MB unpacked, $(wc -l <list) files"
row "e2dax mkfs" "$e2dax" mkfs out/e2dax.img --from oci:layout --quiet
row "tar, then mke2fs -d" bash unpack.sh
if command -v umoci >/dev/null; then
    skopeo --insecure-policy copy -q oci:layout oci:tagged:v1 2>/dev/null &&
        row "umoci, then mke2fs -d" bash -c 'umoci unpack --rootless --image tagged:v1 out/bundle && mke2fs -q -F -t ext2 -d out/bundle/rootfs out/mke2fs.img 200M'
fi

# ---- small files ----
mkdir small
(cd small && for dir in $(seq 100); do mkdir "$dir"; (cd "$dir" && seq 1000 | split -l 1 -a 3 -); done)
echo "small files: $(find small -type f | wc -l)"
row "e2dax mkfs" "$e2dax" mkfs out/e2dax.img --from small --quiet
row "tar" tar cf out/small.tar -C small .
row "mke2fs -d" mke2fs -q -F -t ext2 -N 110000 -d small out/mke2fs.img 600M
