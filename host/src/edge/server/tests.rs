//! A server with a small router of its own, and clients that do not behave.

mod harness;

mod ends;
mod h2;
mod slow;
mod tls;
