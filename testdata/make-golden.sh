#!/bin/bash
# Makes the images of testdata/golden, their manifests and the LIST of them.
#
#   testdata/make-golden.sh [NAME...]      all of them, or those that are named
#
# Needs root, loop devices, a kernel that mounts ext2 (its ext4 driver will do), a temporary folder on a file system
# with holes, ACLs and extended attributes, and: e2fsprogs, genext2fs, acl, attr, libcap2-bin, fdisk, perl, cargo.
# TMPDIR chooses the folder; WALK names a program that prints the manifest of a tree (the one of tests/ otherwise).
#
# A second run gives the same manifests, and the same bytes as far as the tools allow: UUIDs, hash seeds and times are
# fixed, and what the kernel stamps (ctime, crtime, generation, mount time and place) is set by debugfs afterwards. Where
# the kernel puts blocks depends on the number of the process that writes, and a journal says when it was written.
set -euo pipefail
export LC_ALL=C TZ=UTC

here=$(cd "$(dirname "$0")" && pwd)
out=$here/golden
list=$out/LIST
work=$(mktemp -d "${TMPDIR:-/tmp}/golden.XXXXXX")
mnt=/tmp/golden-mount                           # ends up in the superblock
now=1700000000                                  # 14 November 2023
uuid=e2da0000-0000-4000-8000-0000
export E2FSPROGS_FAKE_TIME=$now SOURCE_DATE_EPOCH=$now
wanted=("$@")
making=

cleanup() {
    mountpoint -q "$mnt" && umount "$mnt"
    rmdir "$mnt"
    rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$mnt" "$out"

if [ -z "${WALK:-}" ]; then
    (cd "$here/.." && cargo build -q -p e2dax-tests --bin walk)
    WALK=${CARGO_TARGET_DIR:-$here/../target}/debug/walk
fi

# ---- tools ----

# Whether the image of this name is asked for. The name decides its UUID and hash seed.
want() {
    making=$1
    [ ${#wanted[@]} = 0 ] && return 0
    local name
    for name in "${wanted[@]}"; do [ "$name" = "$1" ] && return 0; done
    return 1
}

# mke2fs IMAGE SIZE ARGUMENT...: with fixed UUID and hash seed.
make_fs() {
    local image=$1 size=$2
    shift 2
    local id
    id=$uuid$(printf %08x "$(printf %s "$making" | cksum | cut -d ' ' -f 1)")
    mke2fs -q -F -U "$id" -E "hash_seed=$id${extended:+,$extended}" "$@" "$image" "$size" >/dev/null
}

# text NAME BYTES: one record of 1 KiB a block, that says where it is; the last is cut. It packs well.
text() {
    perl -e '
        my ($name, $bytes) = @ARGV;
        for (my $at = 0; $at < $bytes; $at += 1024) {
            my $record = sprintf("%s at byte %d\n", $name, $at);
            $record .= "." x (1024 - length $record);
            print substr($record, 0, $bytes - $at);
        }' "$1" "$2"
}

# put FILE OFFSET [TEXT]: bytes, or what comes on standard input, somewhere in a file, which grows to hold them.
put() {
    perl -e '
        my ($file, $at, $text) = @ARGV;
        $text = do { local $/; <STDIN> } if @ARGV < 3;
        open(my $f, -e $file ? "+<" : "+>", $file) or die "$file: $!";
        binmode $f;
        sysseek($f, $at, 0) == $at or $at == 0 or die "$file: seek: $!";
        syswrite($f, $text) == length $text or die "$file: write: $!";
        close $f or die "$file: $!";' "$@"
}

socket() { (cd "$(dirname "$1")" && perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die $!' "$(basename "$1")"); }

# Every access and modification time under a folder, which are all that a user can set.
stamp() { find "$1" -xdev -print0 | xargs -0 touch -h -d "@$now"; }

# settle IMAGE [all]: what only the kernel sets becomes what it is each time. Inodes in use get fixed ctime, crtime and
# generation, those once used (or all) all fixed times.
settle() {
    local image=$1 which=${2:-free} inodes
    inodes=$(dumpe2fs -h "$image" 2>/dev/null | sed -n 's/^Inode count: *//p')
    for ((i = 1; i <= inodes; i++)); do
        { [ "$i" = 2 ] || [ "$i" -gt 10 ]; } && echo "stat <$i>"
    done >"$work/ask"
    debugfs -f "$work/ask" "$image" 2>/dev/null >"$work/stat"
    perl -e '
        my ($now, $which) = @ARGV;
        my ($inode, $links, %seen);
        while (<STDIN>) {
            if (/^Inode: (\d+) /) { ($inode, %seen) = ($1); }
            if (/^Links: (\d+) /) { $links = $1; }
            if (/^ *([acm]time|crtime|dtime): 0x([0-9a-f]+)/) { $seen{$1} = $2; }
            if (/^(BLOCKS|EXTENTS|Fast link)|Device major/ and $inode and exists $seen{ctime}) {
                if ($seen{ctime} ne "00000000") {
                    my @fields = $links && $which ne "all" ? ("ctime", "crtime") : ("atime", "mtime", "ctime", "crtime", "dtime");
                    for my $field (@fields) {
                        next if not exists $seen{$field};
                        print "sif <$inode> $field \@$now\n";
                        print "sif <$inode> ${field}_extra 0\n" if exists $seen{crtime} and $field ne "dtime";
                    }
                    print "sif <$inode> generation $inode\n" if $links;
                }
                $inode = 0;
            }
        }' "$now" "$which" <"$work/stat" >"$work/set"
    {
        echo "ssv mtime @$now"
        echo "ssv wtime @$now"
        echo "ssv mnt_count 1"
        echo "ssv kbytes_written 0"
    } >>"$work/set"
    edit "$image" "$work/set"
}

# edit IMAGE FILE: runs the commands of a file in debugfs, and stops if one fails.
edit() {
    if ! debugfs -w -f "$2" "$1" >"$work/said" 2>&1 ||
        grep -Eiq 'not found|invalid|usage|error|unknown|failed|no such|couldn|must be' "$work/said"; then
        cat "$work/said" >&2
        echo "debugfs failed on $1" >&2
        exit 1
    fi
}

# finish NAME IMAGE [OFFSET+LENGTH]: an image that reads. e2fsck must be silent (or, with $unclean set, mend it alone);
# the manifest comes from the kernel.
finish() {
    local name=$1 image=$2 span=${3:-} fs=$2 options=ro,noatime,loop
    if [ -n "$span" ]; then
        fs=$work/part
        dd if="$image" of="$fs" bs=512 skip=$((${span%+*} / 512)) count=$((${span#*+} / 512)) status=none
        options+=",offset=${span%+*}"
    fi
    if [ -n "${unclean:-}" ]; then
        cp "$fs" "$work/mend"
        e2fsck -fp "$work/mend" >"$work/fsck" 2>&1 && { echo "e2fsck has nothing to mend in $name" >&2; exit 1; }
        [ $? = 1 ] || { cat "$work/fsck" >&2; exit 1; }
    elif ! e2fsck -fn "$fs" >"$work/fsck" 2>&1; then
        cat "$work/fsck" >&2
        echo "e2fsck does not like $name" >&2
        exit 1
    fi
    if [ -z "${derived:-}" ]; then
        mount -t ext2 -o "$options" "$image" "$mnt"
        "$WALK" "$mnt" >"$out/$name.manifest"
        umount "$mnt"
    fi
    pack "$name" "$image"
    enlist "$name" "${unclean:-reads}" "$span"
}

# refuse NAME IMAGE WORD: an image that no ext2 driver may read; the error names the word.
refuse() {
    pack "$1" "$2"
    enlist "$1" "refuses=$3"
}

pack() {
    gzip -9nc "$2" >"$out/$1.img.gz"
    echo "$1 $(stat -c %s "$2") $(stat -c %s "$out/$1.img.gz")"
}

# The LIST keeps the lines of the images that are not made this time.
enlist() {
    touch "$list"
    { grep -v "^$1 " "$list" || true; echo "$1 $2${3:+ $3}"; } | sort >"$list.new"
    mv "$list.new" "$list"
}

# kernel NAME SIZE ARGUMENT...: makes, mounts, calls fill_NAME in the mount, settles; then touch_up_NAME if there is one.
kernel() {
    local name=$1 size=$2 fill=fill_${1//-/_} touch_up=touch_up_${1//-/_}
    want "$name" || return 0
    shift 2
    local image=$work/$name.img
    make_fs "$image" "$size" "$@"
    mount -t ext2 -o loop "$image" "$mnt"
    (cd "$mnt" && "$fill")
    [ -n "${keep_times:-}" ] || stamp "$mnt"
    umount "$mnt"
    settle "$image"
    if declare -F "$touch_up" >/dev/null; then
        "$touch_up" >"$work/touch"
        edit "$image" "$work/touch"
    fi
    finish "$name" "$image"
}

# ---- images ----
. "$here/golden-images.sh"

du -bc "$out"/*.img.gz | tail -1
