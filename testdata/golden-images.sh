# The golden images, one after the other: what is in each. Part of make-golden.sh, which has the tools.
# shellcheck shell=bash disable=SC2154

# ---- the trees ----

# A bit of everything that every block size can hold: holes start and end at multiples of 64 KiB.
tree=$work/tree
mkdir "$tree" && (
    cd "$tree"
    text README 2000 >README
    : >empty
    text big 307200 >big
    text sparse 65536 | put sparse 131072
    text second 65536 | put sparse 524288
    text third 65536 | put sparse 786432
    truncate -s 1048576 sparse
    ln big big.again
    mkdir -p dir/sub/dir sticky
    ln README dir/sub/dir/README
    ln -s README fast
    ln -s "$(printf 'dir/%.0s' {1..20})" slow
    ln -s loop loop
    ln -s "$(printf '0%.0s' {1..59})" longest-fast
    ln -s "$(printf '0%.0s' {1..60})" shortest-slow
    text name 10 >"dir/$(printf 'n%.0s' {1..255})"
    text latin1 10 >$'dir/caf\xe9 \\ space'
    mknod null c 1 3
    mknod disk b 8 1
    mkfifo pipe
    text set-id 100 >set-id
    chown -R 1000:100 dir
    chown 100000:200000 set-id
    chmod 6755 set-id
    chmod 1777 sticky
    chmod 0 empty
    setfattr -n user.origin -v golden README
    setfattr -n user.empty README
    setfattr -n user.large -v "$(printf 'v%.0s' {1..500})" big
    setcap cap_net_raw+ep set-id
    setfacl -m u:1000:rw,g:1001:r README
    setfacl -d -m u:1000:rwx dir
)
stamp "$tree"

# For images without extended attributes, owners and devices.
plain=$work/plain
mkdir "$plain" && (
    cd "$plain"
    text README 2000 >README
    text big 307200 >big
    mkdir -p dir/sub/dir
    ln -s README fast
    ln -s "$(printf 'dir/%.0s' {1..20})" slow
    text name 10 >"dir/$(printf 'n%.0s' {1..255})"
    : >dir/empty
)
stamp "$plain"

# from_tree NAME SIZE ARGUMENT...: by mke2fs -d.
from_tree() {
    local name=$1
    want "$name" || return 0
    local image=$work/$name.img
    stamp "$tree"
    make_fs "$image" "$2" "${@:3}" -d "$tree"
    settle "$image"
    # The kernel mounts no block larger than a page. The tree is the same, so the manifest is the one of 4 KiB blocks,
    # but for the sizes of directories, which depend on the block.
    case $name in
    block-8k | block-16k | block-32k | block-64k)
        sed -E 's/^([^ ]+ d [^ ]+ [^ ]+ [^ ]+) [^ ]+/\1 -/' "$out/block-4k.manifest" >"$out/$name.manifest"
        derived=1 finish "$name" "$image"
        ;;
    *) finish "$name" "$image" ;;
    esac
}

# ---- block sizes ----
from_tree block-1k 2M -t ext2 -b 1024 -I 256 -N 64
from_tree block-2k 3M -t ext2 -b 2048 -I 256 -N 64
from_tree block-4k 3M -t ext2 -b 4096 -I 256 -N 64
from_tree block-8k 4M -t ext2 -b 8192 -I 256 -N 64
from_tree block-16k 4M -t ext2 -b 16384 -I 256 -N 64
from_tree block-32k 5M -t ext2 -b 32768 -I 256 -N 128
from_tree block-64k 8M -t ext2 -b 65536 -I 256 -N 256

# ---- geometry and features ----
# by_debugfs NAME SIZE ARGUMENT...: the plain tree, written by debugfs.
by_debugfs() {
    local name=$1
    want "$name" || return 0
    local image=$work/$name.img
    make_fs "$image" "$2" "${@:3}"
    cat >"$work/write" <<END
write $plain/README README
write $plain/big big
mkdir dir
cd dir
mkdir sub
cd sub
mkdir dir
cd ..
write $plain/dir/empty empty
cd ..
symlink fast README
symlink slow $(readlink "$plain/slow")
mknod null c 1 3
mknod disk b 8 1
mknod pipe p
ln README again
sif README links_count 2
END
    edit "$image" "$work/write"
    settle "$image"
    finish "$name" "$image"
}
by_debugfs revision-0 1M -r 0 -b 1024 -N 64
by_debugfs no-filetype 1M -t ext2 -b 1024 -I 128 -N 64 -O ^filetype
by_debugfs sparse-super2 24M -t ext2 -b 1024 -I 128 -N 64 -O ^resize_inode,sparse_super2
if want empty; then
    make_fs "$work/empty.img" 256K -t ext2 -b 1024 -N 16 -L "golden empty" -M /mnt/golden -m 10
    settle "$work/empty.img"
    finish empty "$work/empty.img"
fi

fill_small() {
    text small 3000 >small
    mkdir dir
    text inner 20000 >dir/inner
    ln -s dir/inner link
}
fill_meta_bg() {
    # One directory in most groups, so that inodes come from everywhere.
    for i in {1..40}; do
        mkdir "dir$i"
        text "file$i" 3000 >"dir$i/file"
    done
}
kernel meta-bg 20M -t ext2 -b 1024 -g 256 -I 128 -N 640 -O meta_bg,^resize_inode

if want resized; then
    image=$work/resized.img
    extended=resize=65536 make_fs "$image" 4M -t ext2 -b 1024 -I 128 -N 64
    mount -t ext2 -o loop "$image" "$mnt"
    (cd "$mnt" && fill_small)
    stamp "$mnt"
    umount "$mnt"
    e2fsck -fp "$image" >/dev/null
    resize2fs "$image" 12M >/dev/null 2>&1
    mount -t ext2 -o loop "$image" "$mnt"
    (cd "$mnt" && mkdir late && text late 5000000 >late/far)
    stamp "$mnt"
    umount "$mnt"
    settle "$image"
    finish resized "$image"
fi

if want bad-blocks; then
    printf '%s\n' 100 101 150 200 >"$work/bad"
    stamp "$plain"
    make_fs "$work/bad.img" 512K -t ext2 -b 1024 -I 128 -N 32 -l "$work/bad" -d "$plain"
    settle "$work/bad.img"
    finish bad-blocks "$work/bad.img"
fi

# As a crash leaves it: not unmounted, counts of another time, a block and an inode in the bitmaps that nobody has, and
# two unlinked files that were open, in the list of orphans.
if want unclean; then
    image=$work/unclean.img
    stamp "$plain"
    make_fs "$image" 512K -t ext2 -b 1024 -I 128 -N 48 -d "$plain"
    {
        echo "write $plain/README orphan1"
        echo "write $plain/README orphan2"
        echo "mkdir late"
    } >"$work/open"
    edit "$image" "$work/open"
    first=$(debugfs -R "stat orphan1" "$image" 2>/dev/null | sed -n 's/^Inode: \([0-9]*\) .*/\1/p')
    second=$(debugfs -R "stat orphan2" "$image" 2>/dev/null | sed -n 's/^Inode: \([0-9]*\) .*/\1/p')
    settle "$image"
    {
        echo "unlink orphan1"
        echo "unlink orphan2"
        echo "sif <$first> links_count 0"
        echo "sif <$second> links_count 0"
        echo "sif <$first> dtime $second"
        echo "ssv last_orphan $first"
        echo "setb 500"
        echo "seti <40>"
        echo "ssv free_blocks_count 7"
        echo "ssv free_inodes_count 3"
        echo "ssv state 0"
    } >"$work/crash"
    edit "$image" "$work/crash"
    unclean=unclean finish unclean "$image"
fi

# ---- block maps ----
fill_sparse_triple() {
    local at
    # Every second block, up to the last direct one and past it.
    for at in 0 2 4 10 12 14 267 269; do put direct-holes $((at * 1024)) "block $at"; done
    # The last block of each level and the first of the next: 12 direct, 256, 65536, then triple.
    for at in 11 12 267 268 523 524 65803 65804 66059 66060 131339 131340; do put edges $((at * 1024)) "block $at"; done
    put triple $((100 << 20)) "a byte past 64 MiB needs a triple indirect block"
    text run 40000 | put triple $(((100 << 20) + 700))
    text tail 5000 >hole-to-the-end
    truncate -s 90000001 hole-to-the-end
    truncate -s 16G nothing-but-hole
    put last-byte $(((65804 + 16777216) * 1024 - 1)) "z"
    put inside-single $((100 * 1024)) "only one indirect block"
    truncate -s $((300 * 1024)) inside-single
}
kernel sparse-triple 2M -t ext2 -b 1024 -I 128 -N 32

fill_sparse_huge() {
    put over-2g $(((2 << 30) - 1)) "ab"
    put over-4g $(((4 << 30) + 49152)) "past double indirect"
    put terabyte $((1 << 40)) "here"
    truncate -s $(((1 << 40) + (3 << 30) + 5)) terabyte
    # The largest file of 4 KiB blocks that i_blocks counts in 32 bits.
    truncate -s 2194719883264 largest
    put largest 2194719883263 "z"
    text pages 8192 | put pages 0
    text pages 8192 | put pages $((2 << 20))
    truncate -s $((6 << 20)) pages
}
kernel sparse-huge 2M -t ext2 -b 4096 -I 256 -N 32

fill_two_mib() {
    # What huge pages are made of: a whole hole of 2 MiB, 2 MiB of data, and half of each.
    truncate -s 2M hole
    text data 2097152 >data
    text mixed 1048576 | put mixed 1048576
    truncate -s 4M mixed
}
kernel two-mib 5M -t ext2 -b 4096 -I 256 -N 32

# ---- names and directories ----
fill_names() {
    local i path=deep
    text file 100 >file
    for i in {1..20}; do ln file "link$i"; done
    mkdir elsewhere
    ln file elsewhere/link
    for i in a b c; do : >"$(printf "$i%.0s" {1..255})"; done
    : >$'\x01\x02 control' && : >$'\xff\xfe\xfd' && : >$'\xc3\xa4 umlaut' && : >$'new\nline' && : >'back\slash' && : >' ' && : >'#comment' && : >'...'
    for i in {1..60}; do path+=/level$i; done
    mkdir -p "$path"
    text bottom 100 >"$path/bottom"
    mkdir links
    ln -s ../file links/relative
    ln -s /file links/absolute
    ln -s b links/a
    ln -s a links/b
    ln -s nowhere links/dangling
    ln -s "$(printf '../links/%.0s' {1..100})relative" links/slow
    ln -s "$(printf 'x%.0s' {1..1023})" links/block
    ln -s ../elsewhere links/directory
    ln -s . links/self
    for i in {1..41}; do ln -s "chain$((i - 1))" "links/chain$i"; done
    ln -s ../file links/chain0
    cp -P links/slow links/slow2
}
kernel names 1M -t ext2 -b 1024 -I 128 -N 192

fill_deleted() {
    local i
    mkdir thirds first last emptied all
    text kept 100 >kept
    for i in {100..160}; do ln kept "thirds/name$i"; done
    for ((i = 100; i <= 160; i += 3)); do rm "thirds/name$i"; done
    # 16-byte entries, 62 to a block of 1 KiB after . and ..
    for i in {10..99}; do ln kept "first/n$i"; ln kept "last/n$i"; ln kept "emptied/n$i"; ln kept "all/n$i"; done
    rm first/n10 first/n7? last/n9?
    rm emptied/n[1-6]?
    rm all/*
    ln kept first/reused
    for i in {1..5}; do text gone 5000 >"gone$i"; done
    sync -f .
    rm gone?
    mkdir removed && rmdir removed
}
kernel deleted 512K -t ext2 -b 1024 -I 128 -N 64 -O ^dir_index

fill_htree() {
    local i tail
    tail=$(printf 'x%.0s' {1..240})
    text target 100 >target
    mkdir two-levels one-level linear
    for i in {1000..1499}; do ln target "two-levels/$i-$tail"; done
    for i in {100..250}; do ln target "one-level/name-$i"; done
    for i in {10..20}; do ln target "linear/$i"; done
    rm two-levels/14*
}
kernel htree 1M -t ext2 -b 1024 -I 128 -N 32 -O dir_index

# ---- attributes ----
fill_specials() {
    mknod null c 1 3
    mknod console c 5 1
    mknod disk b 8 17
    mknod last-old c 255 255
    mknod first-new c 256 0
    mknod minor-256 b 7 256
    mknod largest b 4095 1048575
    mknod blkext b 259 1048575
    mknod zero-major c 0 42
    mkfifo fifo
    socket sock
    text file 10 >owned
    chown 65535:65535 owned
    mkdir owned-dir
    chown 65536:131071 owned-dir
    text file 10 >largest-id
    chown 4294967294:4294967294 largest-id
    ln -s owned link
    chown -h 100000:100001 link
    chown 70000:70001 fifo
    for i in 0000 0111 0222 0444 0777 1000 2000 4000 7777; do : >"mode-$i"; chmod "$i" "mode-$i"; done
}
kernel specials 256K -t ext2 -b 1024 -I 128 -N 48

fill_times() {
    local i=0 stamp
    for stamp in '1901-12-13 20:45:52' '1901-12-13 20:45:52.000000001' '1969-12-31 23:59:59.999999999' '1970-01-01 00:00:00' \
        '2001-09-09 01:46:40.123456789' '2038-01-19 03:14:07.999999999' '2038-01-19 03:14:08' '2106-02-07 06:28:16.5' \
        '2242-03-16 12:56:32' '2446-05-10 22:38:55.999999999'; do
        i=$((i + 1))
        : >"time$i"
        touch -d "$stamp" "time$i"
        ln -s target "link$i"
        touch -h -d "$stamp" "link$i"
    done
    : >apart
    touch -a -d '1980-01-01 00:00:00.000000001' apart
    touch -m -d '2100-01-01 00:00:00.000000002' apart
    touch -d "@$now" . lost+found
}
touch_up_times() {
    # Both 32-bit halves by hand: two bits of epoch below thirty of nanoseconds.
    echo "sif apart ctime @2000000000"
    echo "sif apart ctime_extra 0x0000000d"
    echo "sif apart crtime @1234567890"
    echo "sif apart crtime_extra 0x00000031"
}
keep_times=1 kernel times 256K -t ext2 -b 1024 -I 256 -N 48

fill_flags() {
    local f
    for f in i a d A S c s u; do text "$f" 100 >"flag-$f"; done
    text both 100 >several
    mkdir synchronous top immutable
    : >immutable/file
    # What is immutable or append-only takes no times later.
    stamp .
    for f in i a d A S c s u; do chattr "+$f" "flag-$f"; done
    chattr +dAS several
    chattr +D synchronous
    chattr +T top
    chattr +i immutable
}
touch_up_flags() {
    echo "write $plain/dir/empty flag-t"
    echo "sif flag-t flags 0x8000"
    echo "write $plain/dir/empty flag-j"
    echo "sif flag-j flags 0x4000"
    for f in t j; do
        for field in atime mtime ctime crtime; do echo "sif flag-$f $field @$now"; done
    done
}
keep_times=1 kernel flags 256K -t ext2 -b 1024 -I 256 -N 48

fill_xattrs() {
    local i
    for i in 1 2 3 4; do
        text "$i" 100 >"shared$i"
        setfattr -n user.shared -v "the same block for all" "shared$i"
    done
    text one 100 >several
    setfattr -n user.b -v two several
    setfattr -n user.a -v one several
    setfattr -n user.empty several
    setfattr -n user.binary -v 0x00ff0a0d several
    setfattr -n trusted.hidden -v root several
    setfattr -n security.label -v something several
    text large 100 >large
    setfattr -n user.large -v "$(printf 'v%.0s' {1..900})" large
    text name 100 >name
    setfattr -n "user.$(printf 'n%.0s' {1..250})" -v long name
    text acl 100 >acl
    chmod 640 acl
    setfacl -m u:1000:rw,u:70000:r,g:100:rx,m::rwx acl
    mkdir dir
    setfattr -n user.of -v directory dir
    setfacl -m u:1000:rwx dir
    setfacl -d -m u:1000:rx,g:4294967294:rwx dir
    text inherits 100 >dir/inherits
    mkdir dir/sub
    text cap 100 >cap
    setcap cap_net_bind_service,cap_sys_admin+eip cap
    ln -s acl link
    setfattr -h -n trusted.link -v yes link
    mkfifo pipe
    setfattr -n trusted.pipe -v yes pipe
    text full 100 >full
    for i in {1..9}; do setfattr -n "user.attribute$i" -v "$(printf "$i%.0s" {1..50})" full; done
    setfattr -x user.attribute5 full
}
fill_xattr_128() { fill_xattrs; }
fill_xattr_256() { fill_xattrs; }
fill_xattr_1024() {
    fill_xattrs
    text both 100 >both
    setfattr -n user.inside -v "$(printf 'i%.0s' {1..700})" both
    setfattr -n user.outside -v "$(printf 'o%.0s' {1..700})" both
}
kernel xattr-128 512K -t ext2 -b 1024 -I 128 -N 48
kernel xattr-256 512K -t ext2 -b 1024 -I 256 -N 48
fill_xattr_4096() { fill_xattr_1024; }
kernel xattr-1024 1M -t ext2 -b 4096 -I 1024 -N 48
kernel xattr-4096 1M -t ext2 -b 4096 -I 4096 -N 48

# ---- journals ----
fill_ext3_clean() { fill_small; }
kernel ext3-clean 3M -t ext3 -J size=1 -b 1024 -I 128 -N 32
if want ext3-recover; then
    image=$work/ext3-recover.img
    make_fs "$image" 3M -t ext3 -J size=1 -b 1024 -I 128 -N 32
    mount -t ext3 -o loop "$image" "$mnt"
    (cd "$mnt" && fill_small)
    sync "$mnt/small" "$mnt/dir/inner" "$mnt/dir" "$mnt"
    # The mount holds what the device does not: all the small files are in the journal alone.
    cp --sparse=always "$image" "$image.torn"
    umount "$mnt"
    refuse ext3-recover "$image.torn" journal
fi

# ---- what is not ext2 ----
if want ext4-extents; then
    stamp "$plain"
    make_fs "$work/extents.img" 1M -t ext4 -O ^has_journal,^64bit,^metadata_csum -b 1024 -I 256 -N 32 -d "$plain"
    settle "$work/extents.img"
    refuse ext4-extents "$work/extents.img" extents
fi
if want ext4-64bit; then
    make_fs "$work/64bit.img" 512K -t ext4 -O ^has_journal,extents,64bit,^metadata_csum,^flex_bg -b 1024 -I 256 -N 16
    echo "feature -extents" >"$work/feature"
    edit "$work/64bit.img" "$work/feature"
    refuse ext4-64bit "$work/64bit.img" 64bit
fi

if want journal-device; then
    make_fs "$work/journal.img" 1M -O journal_dev -b 1024
    refuse journal-device "$work/journal.img" journal_dev
fi

# ---- other tools, and containers ----
if want genext2fs; then
    image=$work/genext2fs.img
    cat >"$work/devices" <<'END'
/dev d 755 0 0 - - - - -
/dev/mem c 640 0 0 1 1 0 0 -
/dev/tty c 666 0 0 5 0 0 1 4
/dev/loop b 640 0 6 7 0 0 1 2
/dev/pipe p 600 0 0 - - - - -
END
    stamp "$plain"
    genext2fs -q -B 1024 -b 640 -N 64 -m 5 -d "$plain" -D "$work/devices" "$image" >/dev/null
    settle "$image" all
    finish genext2fs "$image"
fi
# partitioned NAME LABEL SCRIPT OFFSET+LENGTH
partitioned() {
    want "$1" || return 0
    local image=$work/$1.img
    truncate -s 3M "$image"
    stamp "$plain"
    make_fs "$work/inner" 1M -t ext2 -b 1024 -I 128 -N 32 -d "$plain"
    settle "$work/inner"
    sfdisk -q "$image" <<<"$2"
    dd if="$work/inner" of="$image" bs=512 seek=$((${3%+*} / 512)) conv=notrunc status=none
    finish "$1" "$image" "$3"
}
partitioned partition-mbr 'label: dos
label-id: 0xe2da0001
start=64, size=128, type=82
start=2048, size=2048, type=83, bootable
start=4096, size=2000, type=5
start=4160, size=64, type=da' 1048576+1048576
partitioned partition-gpt 'label: gpt
label-id: E2DA0000-0000-4000-8000-000000000002
first-lba: 34
start=64, size=128, type=21686148-6449-6E6F-744E-656564454649, uuid=E2DA0000-0000-4000-8000-000000000003, name=boot
start=2048, size=2048, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, uuid=E2DA0000-0000-4000-8000-000000000004, name=root' 1048576+1048576
