//! Connections by address, so that one machine cannot take every place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections each address has. It holds only addresses that have one, so it is bounded by all places.
#[derive(Debug)]
pub(super) struct Peers {
    most: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address; given back when dropped.
#[derive(Debug)]
pub(super) struct Counted {
    peers: Arc<Peers>,
    address: Option<IpAddr>,
}

impl Peers {
    pub(super) fn new(most: usize) -> Self {
        Self { most, counts: Mutex::new(HashMap::new()) }
    }

    /// Counts a connection; null when the address has its share. A proxy on this machine is not one client.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return Some(Counted { peers: Arc::clone(self), address: None });
        }
        let address = network(address);
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Counted { peers: Arc::clone(self), address: Some(address) })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Held for one number at a time.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One customer of a provider has a whole /64 of IPv6 addresses, and may use another for each connection.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut counts = self.peers.counts();
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let peers = Arc::new(Peers::new(2));
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        let (first, second) = (peers.admit(here), peers.admit("::ffff:192.0.2.1".parse().unwrap()));
        assert!(first.is_some() && second.is_some());
        assert!(peers.admit(here).is_none(), "mapped and plain are one address");
        assert!(peers.admit("192.0.2.2".parse().unwrap()).is_some());
        drop(first);
        assert!(peers.admit(here).is_some());
        drop(second);
        assert!(peers.counts().is_empty(), "{peers:?}");
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_this_machine_is_none() {
        let peers = Arc::new(Peers::new(1));
        let held = peers.admit("2001:db8::1".parse().unwrap());
        assert!(held.is_some());
        assert!(peers.admit("2001:db8::2".parse().unwrap()).is_none());
        assert!(peers.admit("2001:db8:0:1::1".parse().unwrap()).is_some());
        let own: Vec<_> = (0..5).map(|_| peers.admit("::1".parse().unwrap())).collect();
        assert!(own.iter().all(Option::is_some));
    }
}
