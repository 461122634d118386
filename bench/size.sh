#!/bin/bash
# What reading one file costs in code, and in seconds to build: ours with and without the feature `write`, and ext4-view. The
# seconds are those of the processor, all crates from nothing, which others on the machine disturb least; and those that passed.
#
# A program without std (its own allocator, opt-level "s", fat LTO, panic=abort) opens an image in memory, reads a file and says how
# long it is. What counts is its text section less that of a program that does nothing. x86_64 Linux, no network after the
# first time.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${E2DAX_SIZE_DIR:-$(mktemp -d)}
export CARGO_TERM_COLOR=never CARGO_TARGET_DIR=$work/target

program() { # NAME DEPENDENCY BODY
    mkdir -p "$work/$1/src"
    cat >"$work/$1/Cargo.toml" <<EOF
[package]
name = "size-$1"
version = "0.0.0"
edition = "2024"
[workspace]
[dependencies]
$2
[profile.release]
opt-level = "s"
lto = "fat"
codegen-units = 1
panic = "abort"
strip = true
EOF
    cat >"$work/$1/src/main.rs" <<EOF
#![no_std]
#![no_main]
#![allow(dead_code)]
extern crate alloc;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

struct Bump;
static NEXT: AtomicUsize = AtomicUsize::new(0);
static mut HEAP: [u8; 1 << 20] = [0; 1 << 20];
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let at = NEXT.fetch_add(layout.size() + layout.align(), Ordering::Relaxed);
        if at + layout.size() + layout.align() > 1 << 20 {
            return core::ptr::null_mut();
        }
        let start = (&raw mut HEAP).addr() + at;
        (&raw mut HEAP).cast::<u8>().wrapping_add(start.next_multiple_of(layout.align()) - (&raw mut HEAP).addr())
    }
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
#[global_allocator]
static ALLOCATOR: Bump = Bump;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
static mut IMAGE: [u8; 1 << 16] = [0; 1 << 16];

fn image() -> &'static [u8] {
    unsafe { core::slice::from_raw_parts(core::hint::black_box((&raw const IMAGE).cast()), 1 << 16) }
}

fn run() -> usize {
    $3
}

#[unsafe(no_mangle)]
extern "C" fn main(_: i32, _: *const *const u8) -> i32 {
    run() as i32
}
#[link(name = "c")]
unsafe extern "C" {}
EOF
    local begin=$SECONDS
    TIMEFORMAT='%U %S'
    { time cargo build -q --release --manifest-path "$work/$1/Cargo.toml"; } 2>"$work/log" || { cat "$work/log"; exit 1; }
    processor=$(tail -1 "$work/log" | awk '{ printf "%d", $1 + $2 }')
    seconds=$((SECONDS - begin))
    text=$(size -A "$CARGO_TARGET_DIR/release/size-$1" | awk '$1 == ".text" { print $2 }')
}

ours="use ext2_core::{Ext2, Follow, OpenOptions};
    let Ok(device) = blockdev::ReadDevice::new(image()) else { return 0 };
    let Ok(fs) = Ext2::open(device, &OpenOptions::read_only()) else { return 0 };
    let mut buf = [0; 256];
    fs.resolve(\"/etc/passwd\", Follow::Yes).and_then(|file| file.read_at(0, &mut buf)).unwrap_or(0)"
own="blockdev = { package = \"e2dax-blockdev\", path = \"$root/blockdev\", default-features = false }
ext2-core = { path = \"$root/ext2-core\", default-features = false"
view="use alloc::boxed::Box;
    use ext4_view::{Ext4, Ext4Read};
    struct Image;
    impl Ext4Read for Image {
        fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Box<dyn core::error::Error + Send + Sync + 'static>> {
            let from = at as usize;
            to.copy_from_slice(image().get(from..from + to.len()).ok_or(\"past the end\")?);
            Ok(())
        }
    }
    let Ok(fs) = Ext4::load(Box::new(Image)) else { return 0 };
    let mut buf = [0; 256];
    fs.open(\"/etc/passwd\").and_then(|mut file| file.read_bytes(&mut buf)).unwrap_or(0)"

program empty "" "0"
nothing=$text
printf '%-32s %12s %13s %10s\n' "a program that reads a file" "text, bytes" "processor, s" "passed, s"
row() { printf '%-32s %12d %13d %10d\n' "$1" $((text - nothing)) "$processor" "$seconds"; }
program read "$own }" "$ours"
row "ext2-core, only reading"
rm -rf "$CARGO_TARGET_DIR"
program write "$own, features = [\"write\"] }" "$ours"
row "ext2-core with \`write\`"
rm -rf "$CARGO_TARGET_DIR"
program view 'ext4-view = { version = "1", default-features = false }' "$view"
row "ext4-view 1"
[ -n "${E2DAX_SIZE_DIR:-}" ] || rm -rf "$work"
