//! The `wharf` program: it parses its arguments and starts what they ask for, nothing else.
fn main() {}
