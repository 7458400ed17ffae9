//! A new migration file is embedded without touching any code.
fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
