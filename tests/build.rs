//! Compiles the ring's counting, which `ring_model.rs` takes from the driver, with loom's atomics: in this package alone.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
