//! Ship, the runtime inside a container.

fn main() {}
