//! What every request passes, outermost first: its id, the Host and Origin lists, who asks, how often.

mod audit;
mod identity;
mod origin;
mod rate_limit;
mod request_id;

pub use audit::{Audited, audit};
pub use identity::{authenticate, recognise};
pub use origin::{AllowedHosts, check_origin};
pub use rate_limit::{RateLimits, limit_rate};
pub use request_id::{RequestIds, identify};
