//! Names the shared library as programs that were linked to it look for it.

fn main() {
    // Grows with `ANNULUS_ABI` in the header.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libannulus.so.1");
    println!("cargo::rerun-if-changed=build.rs");
}
