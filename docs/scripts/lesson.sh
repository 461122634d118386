#!/bin/sh
# A lesson: where a file's bytes are, what a broken pointer does, and how it is mended.
# Runs in an empty folder, without root. Needs e2dax and e2fsck. Every line that begins with "show" is worth reading.
set -eu
e2dax=${E2DAX:-e2dax}
show() { echo "\$ e2dax $*"; "$e2dax" "$@"; echo; }
refused() { if "$e2dax" "$@" >/dev/null 2>&1; then echo "should have been refused: $*"; exit 1; fi; }

# ---- 1. a file that needs an indirect block ----
"$e2dax" mkfs -b 1024 --size 4M lesson.img >/dev/null
i=0; while [ $i -lt 400 ]; do echo "line $i of a file that is longer than twelve blocks of 1 KiB"; i=$((i+1)); done > notes
"$e2dax" cp notes lesson.img:/notes
show stat lesson.img:/notes
show map --blocks lesson.img:/notes

# ---- 2. look: the inode, the indirect block, whose a block is ----
show hex lesson.img:/notes
indirect=$("$e2dax" map --blocks lesson.img:/notes | awk '$3 == "indirect" { print $4 }')
inode=$("$e2dax" ls -i lesson.img:/notes | awk '{ print $1 }')
show hex lesson.img --block "$indirect"
show whose lesson.img "$indirect" 1 2

# ---- 3. break: the first pointer of the indirect block leads to the superblock ----
before=$("$e2dax" hex --json lesson.img --block "$indirect" | sed 's/.*"name":"pointer\[0\]","value":\([0-9]*\).*/\1/')
refused poke lesson.img block "$indirect" 'pointer[0]' 1
show poke lesson.img block "$indirect" 'pointer[0]' 1 --force
if "$e2dax" check lesson.img; then echo "the damage was not found"; exit 1; fi
if e2fsck -fn lesson.img >/dev/null 2>&1; then echo "e2fsck finds nothing"; exit 1; fi

# ---- 4. mend: by hand, with what was there before ----
show poke lesson.img block "$indirect" 'pointer[0]' "$before"
"$e2dax" check lesson.img
e2fsck -fn lesson.img >/dev/null 2>&1
"$e2dax" cat lesson.img:/notes | cmp - notes

# ---- 5. a wrong count of links, and what a checker says of it ----
show poke lesson.img inode "$inode" links_count 7
if "$e2dax" check lesson.img; then echo "the damage was not found"; exit 1; fi
show poke lesson.img inode "$inode" links_count 1
"$e2dax" check lesson.img
echo "lesson done"
