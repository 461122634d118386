#!/bin/sh
# A tester: damaged images made by a script, one for each kind of damage, and what a checker answers to each.
# Runs in an empty folder, without root. Needs e2dax and e2fsck.
set -eu
e2dax=${E2DAX:-e2dax}

# ---- a sound image, made in one process ----
"$e2dax" mkfs -b 1024 --size 8M sound.img >/dev/null
cat > make.txt <<'END'
# a tree to damage
mkdir -p /etc/conf
mkdir /var
touch /etc/conf/a
truncate -s 300000 /var/sparse
ln /etc/conf/a /etc/conf/b
ln -s a /etc/conf/link
chmod 600 /etc/conf/a
cd /etc/conf
touch c
rm c
- rm nothing-of-that-name
END
"$e2dax" shell sound.img -f make.txt 2>/dev/null
"$e2dax" check -q sound.img
e2fsck -fn sound.img >/dev/null 2>&1

# ---- one damage each ----
damage() {
    name=$1; shift
    cp sound.img "$name.img"
    "$e2dax" poke "$name.img" "$@" --force >/dev/null
    if e2fsck -fn "$name.img" >/dev/null 2>&1; then echo "$name: e2fsck finds nothing"; exit 1; fi
    code=0; "$e2dax" check -q "$name.img" >/dev/null 2>&1 || code=$?
    case $code in 4|8) echo "$name: found, exit code $code" ;; *) echo "$name: exit code $code"; exit 1 ;; esac
    if "$e2dax" diff --bits sound.img "$name.img" >/dev/null 2>&1; then echo "$name: diff finds nothing"; exit 1; fi
}
file=$("$e2dax" ls -i sound.img:/etc/conf/a | awk '{ print $1 }')
dir=$("$e2dax" ls -id sound.img:/etc/conf | awk '{ print $1 }')
block=$("$e2dax" map --at 0 sound.img:/etc/conf)
damage links-too-many inode "$file" links_count 9
damage mode-of-no-type inode "$file" mode 0170644
damage directory-without-blocks inode "$dir" 'block[0]' 0
damage record-too-long block "$block" 'entry[2].rec_len' 2000 --as directory
damage entry-to-nowhere block "$block" 'entry[2].inode' 4000000 --as directory
damage dot-gone block "$block" 'entry[0].inode' "$file" --as directory
damage block-marked-free bit:block "$block" free
damage inode-marked-free bit:inode "$file" free
damage magic superblock magic 0
damage bitmap-elsewhere group:0 block_bitmap 1
echo "tester done"
