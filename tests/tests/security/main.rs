//! What user code can see and do, looked at from inside. Run as root and as a normal user: the isolation differs,
//! what must hold does not.

#[cfg(test)]
mod docker_container;
#[cfg(test)]
mod docker_network;
#[cfg(test)]
mod inside;
#[cfg(test)]
mod network;
#[cfg(test)]
mod privilege;
