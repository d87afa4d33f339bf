//! Bad input, bad code, bad luck: each has an answer from the contract, and the next call on another sandbox is
//! unharmed.

#[cfg(test)]
mod clients;
#[cfg(test)]
mod code;
#[cfg(test)]
mod input;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod traps;
