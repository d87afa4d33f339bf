//! Who may ask, and from where.

#[cfg(test)]
mod admin_keys;
#[cfg(test)]
mod anonymous;
#[cfg(test)]
mod browsers;
#[cfg(test)]
mod command;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod lockers;
#[cfg(test)]
mod tenants;
#[cfg(test)]
mod tokens;
