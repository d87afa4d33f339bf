//! Who may ask, and from where.

#[cfg(test)]
mod anonymous;
#[cfg(test)]
mod browsers;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod lockers;
#[cfg(test)]
mod tenants;
