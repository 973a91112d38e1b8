//! The converter.
fn main() {}
