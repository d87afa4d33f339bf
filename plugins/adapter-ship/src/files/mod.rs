//! `filesystem`: what it can do, what it asks Ship, what it makes of the answers.

pub mod answer;
pub mod describe;
pub mod plan;
