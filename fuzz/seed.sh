#!/bin/sh
# Fills fuzz/corpus from testdata.
set -e
cd "$(dirname "$0")"
mkdir -p corpus/dax corpus/script corpus/manifest corpus/partitions corpus/image
cp ../testdata/linux-6.1/scripts/*.ops corpus/dax/
cp ../testdata/linux-6.1/scripts/*.ops corpus/script/
cp ../testdata/golden/*.manifest corpus/manifest/
for image in ../testdata/golden/partition-*.img.gz; do
    gunzip -c "$image" > /tmp/e2dax-fuzz-seed.$$
    # The start and the end of the disk, as the target puts them together.
    { head -c 65536 /tmp/e2dax-fuzz-seed.$$; tail -c 65536 /tmp/e2dax-fuzz-seed.$$; } > "corpus/partitions/$(basename "$image" .img.gz)"
    rm -f /tmp/e2dax-fuzz-seed.$$
done
for seed in 1 2 3 4 5 6 7 8; do
    head -c 200 ../testdata/golden/LIST | tail -c "$((seed * 20))" > "corpus/image/$seed"
done
mkdir -p corpus/tar corpus/mkfs
for flags in --format=gnu --format=ustar --format=pax "--format=gnu --sparse" "--format=pax --sparse --xattrs"; do
    # shellcheck disable=SC2086
    tar -cf "corpus/tar/$(echo "$flags" | tr -dc a-z)" $flags fuzz_targets/tar.rs ../testdata/linux-6.1/README.md 2>/dev/null
done
# What is arbitrary has no form to be seeded with.
for seed in 1 2 3 4; do
    head -c "$((seed * 400))" ../Cargo.lock > "corpus/mkfs/$seed"
done
