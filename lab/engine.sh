#!/bin/bash
# Builds the engine as WebAssembly, with rustup's target where it is installed, else with Debian's compiler, which builds
# std itself (rustc-web, rust-web-src, libstd-rust-web-dev, lld). Prints the path of the module; exits with 3 where no
# compiler can. With --compiler it prints which one it would take, and builds nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
target=wasm32-unknown-unknown
# The same sources give the same bytes wherever they lie, and whatever flags the machine has for itself.
unset RUSTFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_BUILD_RUSTFLAGS
# In this form the flags may have spaces in them, as a path may.
export CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$PWD=/e2dax"$'\x1f'"--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
std=()
if ! [ -d "$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$target/lib" ]; then
    if ! [ -x /usr/bin/wasm-ld ] || ! [ -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/std" ]; then
        echo "no compiler for $target: rustup target add $target, or apt-get install rustc-web rust-web-src libstd-rust-web-dev lld" >&2
        exit 3
    fi
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=/usr/bin/wasm-ld
    std=(-Zbuild-std=std,panic_abort)
fi
if [ "${1:-}" = --compiler ]; then
    "${RUSTC:-rustc}" --version
    exit
fi
cargo rustc -q --locked -p e2dax-lab --profile lab --target $target --target-dir target/lab --crate-type cdylib "${std[@]}" >&2
echo "target/lab/$target/lab/e2dax_lab.wasm"
