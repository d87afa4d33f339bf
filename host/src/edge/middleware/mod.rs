//! What every request passes, outermost first: compression, counting, its id, CORS, the Host and Origin lists, who asks,
//! how often.

mod audit;
mod cors;
mod gzip;
mod identity;
mod measure;
mod origin;
mod rate_limit;
mod request_id;

pub use audit::{Audited, audit};
pub use cors::{ListedOrigin, cors};
pub use gzip::gzip;
pub use identity::{as_operator, authenticate, recognise};
pub use measure::measure;
pub use origin::{AllowedHosts, check_origin};
pub use rate_limit::{RateLimits, limit_rate};
pub use request_id::{RequestIds, identify};
