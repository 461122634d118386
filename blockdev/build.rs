//! What is known of the target, as one name each:
//!
//! - `known_words`: loads and stores of device memory are assembly of ours, one instruction each (`src/mem/word.rs`);
//! - `resumes_faults`: a bus error in them can be made an error of the call (`src/mem/fault.rs`, `src/sigbus.rs`).

use std::env::var;

/// Architectures whose instructions and registers are written down in the sources.
const KNOWN: [&str; 5] = ["x86_64", "x86", "aarch64", "arm", "riscv64"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(known_words, resumes_faults)");
    let is = |name: &str, values: &[&str]| var(name).is_ok_and(|value| values.contains(&&*value));
    if is("CARGO_CFG_TARGET_ARCH", &KNOWN) && var("CARGO_CFG_MIRI").is_err() {
        println!("cargo::rustc-cfg=known_words");
        if var("CARGO_FEATURE_STD").is_ok() && is("CARGO_CFG_TARGET_OS", &["linux", "android"]) {
            println!("cargo::rustc-cfg=resumes_faults");
        }
    }
}
