//! Hands the linker the order of functions (`link/order.ld`), for release builds by a linker that understands it.
//!
//! What a service has touched of its executable is most of the memory that it holds when idle; the kernel maps sixteen pages
//! around each touched one. With what it needs side by side that is 2.7 MiB less.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=link/order.ld");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rerun-if-env-changed=JOBSERVICE_LINK_ORDER");
    let is = |name: &str, value: &str| var(name).is_ok_and(|found| found == value);
    // The linker of the toolchain and GNU ld add to their layout what such a script says; others may refuse it. So whoever
    // chose a linker goes without, and so does who says JOBSERVICE_LINK_ORDER=off (one may be chosen unseen: `mold -run`).
    let chosen = is("JOBSERVICE_LINK_ORDER", "off")
        || var("RUSTC_LINKER").is_ok()
        || var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("fuse-ld") || flags.contains("linker"));
    let known = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if is("PROFILE", "release") && known && !chosen {
        // A comma would end the argument.
        if let Some(here) = var("CARGO_MANIFEST_DIR").ok().filter(|here| !here.contains(',')) {
            println!("cargo::rustc-link-arg-bin=jobservice=-Wl,-T,{here}/link/order.ld");
        }
    }
}
