//! The contract as a whole: its document, who may call what, and whether Bay keeps to it.

#[cfg(test)]
mod coverage;
#[cfg(test)]
mod document;
#[cfg(test)]
mod fuzzed;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod python;
