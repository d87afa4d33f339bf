//! A driver that is away, slow or comes back, with a fake one: what the store then says, and that nothing is left.

mod away;
mod cancel;
mod fake;
mod left;
