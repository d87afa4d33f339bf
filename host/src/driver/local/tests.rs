//! Real sandboxes, as whoever runs this: as root with two identities and cgroups, else as a normal user; and as root
//! once more as a normal user. Nothing is skipped when bubblewrap is missing: it fails.

mod bench;
mod egress;
mod harness;
mod hostile;
mod inside;
mod lifecycle;
