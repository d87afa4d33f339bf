//! The routes, one by one, as the contract says.

#[cfg(test)]
mod errors;
#[cfg(test)]
mod executions;
#[cfg(test)]
mod files;
#[cfg(test)]
mod history;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod lockers;
#[cfg(test)]
mod ops;
#[cfg(test)]
mod python;
#[cfg(test)]
mod quotas;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod sandboxes;
#[cfg(test)]
mod server;
#[cfg(test)]
mod shell;
#[cfg(test)]
mod stages;
#[cfg(test)]
mod streaming;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod transfer;
#[cfg(test)]
mod watch;
