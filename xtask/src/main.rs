//! Chores of the repository that are not part of the product; `cargo xtask` lists them.
fn main() {}
