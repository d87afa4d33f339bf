//! What every request passes, outermost first: its id, the Host and Origin lists, who asks.

mod identity;
mod origin;
mod request_id;

pub use identity::{as_operator, authenticate, recognise};
pub use origin::{AllowedHosts, check_origin};
pub use request_id::{RequestIds, identify};
