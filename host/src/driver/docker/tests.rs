//! Real containers of the daemon that `BAY_TEST_DOCKER_HOST` names, in all connection modes. Without a daemon they are
//! not selected; selected without one they fail.

mod absent;
mod harness;
mod hostile;
mod lifecycle;
mod ship_volume;
mod unwell;
