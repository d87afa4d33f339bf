//! The public surface, written down in golden files: a change of it is seen in review.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod profiles;
#[cfg(test)]
mod suites;
