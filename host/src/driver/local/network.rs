//! What a sandbox may reach: nothing, or the internet without anything private.
//!
//! As root, `egress` is a pair of virtual interfaces with address translation. Two walls, either of which is enough:
//! routes inside, set by init while it still can, and [`super::firewall`] outside, which no sandbox can touch. The
//! host's own network namespace is never shared, and IPv6 is off inside.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::firewall::{self, Rules};
use super::netlink::Netlink;

/// An IPv4 network.
pub(super) type Prefix = (Ipv4Addr, u8);

/// What user code may not reach, whatever the host's addresses are: this-network, private, carrier-grade, loopback,
/// link-local (and with it metadata services), protocol assignments, benchmarking, multicast, reserved, broadcast.
pub(super) const DENIED: [Prefix; 12] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The same for IPv6, for the day a sandbox has it: mapped and translated IPv4, discard, Teredo and other special
/// purposes, 6to4, unique local, link-local, multicast.
const DENIED_V6: [&str; 9] = [
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2001::/23",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

/// Ranges from which each sandbox gets four addresses; the first that clashes with no route of the host is used.
const POOLS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 210, 0, 0),
    Ipv4Addr::new(10, 211, 0, 0),
    Ipv4Addr::new(172, 30, 0, 0),
    Ipv4Addr::new(10, 87, 0, 0),
];
/// Length of a pool's prefix.
pub(super) const POOL_BITS: u8 = 16;
/// Length of a sandbox's prefix.
pub(super) const SUBNET_BITS: u8 = 30;
/// Sandboxes in a pool.
const SUBNETS: u16 = 1 << (SUBNET_BITS - POOL_BITS);

/// Every interface of every Bay starts so.
pub(super) const ANY_BAY: &str = "by";

/// The interface inside.
pub(super) const INSIDE: &str = "eth0";

/// The network of a container, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Attached {
    /// A pair of virtual interfaces.
    Veth {
        /// The host's end.
        interface: String,
        /// Which part of the pool.
        subnet: u16,
        /// The pool.
        pool: Ipv4Addr,
    },
    /// The rootless helper.
    Pasta,
}

/// The two addresses of a sandbox's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Addresses {
    /// The host's end.
    pub(super) gateway: Ipv4Addr,
    /// The sandbox's end.
    pub(super) inside: Ipv4Addr,
}

/// Everything that user code may not reach, in CIDR notation, v4 and v6: the fixed list, this machine's own
/// addresses and the sandbox's own network. Loopback stays usable inside: its addresses are local there, and local
/// addresses are looked up before any of these routes.
pub fn denied_prefixes(own: &[IpAddr], subnet: Option<(Ipv4Addr, u8)>) -> Vec<String> {
    let mut list: Vec<String> = DENIED.iter().map(|(address, bits)| format!("{address}/{bits}")).collect();
    list.extend(DENIED_V6.map(str::to_owned));
    for address in own {
        match address {
            IpAddr::V4(v4) if covered(*v4, &DENIED) => {}
            IpAddr::V4(v4) => list.push(format!("{v4}/32")),
            IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => {}
            IpAddr::V6(v6) => list.push(format!("{v6}/128")),
        }
    }
    if let Some((address, bits)) = subnet
        && !covered(address, &DENIED)
    {
        list.push(format!("{address}/{bits}"));
    }
    list
}

/// True when one of the prefixes holds the address.
pub(super) fn covered(address: Ipv4Addr, prefixes: &[Prefix]) -> bool {
    prefixes.iter().any(|(network, bits)| same_network(address, *network, *bits))
}

fn same_network(one: Ipv4Addr, other: Ipv4Addr, bits: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    one.to_bits() & mask == other.to_bits() & mask
}

/// The resolvers a sandbox can be given: IPv4, not on the host's loopback, which it cannot reach. A stub there has
/// its upstreams written elsewhere.
pub(super) fn resolvers() -> Vec<Ipv4Addr> {
    for file in
        ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"]
    {
        let found = parse_resolvers(&fs::read_to_string(file).unwrap_or_default());
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn parse_resolvers(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some("nameserver")
            && let Some(address) = words.next().and_then(|word| word.parse::<Ipv4Addr>().ok())
            && !address.is_loopback()
            && !address.is_unspecified()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    // The C library asks three at most.
    found.truncate(3);
    found
}

/// A line of the kernel's routing table.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    interface: String,
    network: Ipv4Addr,
    mask: Ipv4Addr,
}

fn routes() -> Vec<Route> {
    parse_routes(&fs::read_to_string("/proc/net/route").unwrap_or_default())
}

fn parse_routes(table: &str) -> Vec<Route> {
    let address =
        |hex: &str| u32::from_str_radix(hex, 16).ok().map(|bits| Ipv4Addr::from(bits.to_ne_bytes()));
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if let (Some(interface), Some(network), Some(mask)) = (
            fields.first(),
            fields.get(1).and_then(|hex| address(hex)),
            fields.get(7).and_then(|hex| address(hex)),
        ) {
            found.push(Route { interface: (*interface).to_owned(), network, mask });
        }
    }
    found
}

/// The interfaces that lead to the rest of the world.
fn uplinks(routes: &[Route]) -> BTreeSet<String> {
    routes.iter().filter(|route| route.mask.is_unspecified()).map(|route| route.interface.clone()).collect()
}

/// `egress` for root.
pub(super) struct Veths {
    /// Every interface of this Bay starts so, and no other's.
    prefix: String,
    pool: Ipv4Addr,
    /// Where to begin in it: two Bays on one machine may have the same pool.
    first: u16,
    memory: PathBuf,
    state: Mutex<Allocation>,
}

#[derive(Default)]
struct Allocation {
    used: BTreeSet<u16>,
    /// The rules as installed.
    installed: Option<Rules>,
}

impl Veths {
    /// Chooses a pool. `existing` are the networks of containers that survived; `run` is where to remember what was
    /// changed on the host.
    pub(super) fn new(instance: &str, run: &Path, existing: &[Attached]) -> Result<Self, String> {
        let digest = Sha256::digest(instance.as_bytes());
        let prefix = format!("{ANY_BAY}{}-", hex::encode(&digest[..3]));
        let first = u16::from_be_bytes([digest[3], digest[4]]) % SUBNETS;
        let mut used = BTreeSet::new();
        let mut kept = None;
        for attached in existing {
            if let Attached::Veth { subnet, pool, .. } = attached {
                used.insert(*subnet);
                kept = Some(*pool);
            }
        }
        let pool = match kept {
            Some(pool) => pool,
            None => free_pool(&routes(), &resolvers())
                .ok_or_else(|| "every address pool clashes with a route of this host".to_owned())?,
        };
        firewall::available()?;
        let memory = run.join("forwarding.json");
        let veths =
            Self { prefix, pool, first, memory, state: Mutex::new(Allocation { used, installed: None }) };
        // Now rather than at the first start, which has no 20 ms to spare.
        veths.stand(&mut veths.lock(), &resolvers()).map_err(|error| format!("no firewall: {error}"))?;
        Ok(veths)
    }

    /// Sees to it that the firewall stands as this host's network needs it now.
    fn stand(&self, state: &mut Allocation, resolvers: &[Ipv4Addr]) -> io::Result<()> {
        let rules = Rules {
            prefix: self.prefix.clone(),
            pool: self.pool,
            resolvers: resolvers.to_vec(),
            turned: firewall::to_turn_on(&uplinks(&routes()), &self.memory)?,
        };
        if state.installed.as_ref() != Some(&rules) {
            firewall::install(&rules)?;
            state.installed = Some(rules);
        }
        Ok(())
    }

    fn base(&self, subnet: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pool.to_bits() + (u32::from(subnet) << (32 - SUBNET_BITS)))
    }

    fn lock(&self) -> MutexGuard<'_, Allocation> {
        // A panic elsewhere leaves plain sets behind, which are as good as before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a part of the pool, and sees to it that the firewall stands before anything could use it.
    pub(super) fn allocate(&self, resolvers: &[Ipv4Addr]) -> io::Result<Attached> {
        let mut state = self.lock();
        let routes = routes();
        let subnet =
            free_subnet(&state.used, self.first, |subnet| clashes(self.base(subnet), SUBNET_BITS, &routes))
                .ok_or_else(|| io::Error::other("every network of the address pool is in use"))?;
        self.stand(&mut state, resolvers)?;
        if let Some(rules) = &state.installed {
            firewall::turn_on(&rules.turned, &self.memory)?;
        }
        state.used.insert(subnet);
        Ok(Attached::Veth { interface: format!("{}{subnet}", self.prefix), subnet, pool: self.pool })
    }

    /// Gives it back; after the last one nothing is forwarded any more.
    pub(super) fn release(&self, attached: &Attached) -> io::Result<()> {
        let Attached::Veth { interface, subnet, pool } = attached else { return Ok(()) };
        let mut state = self.lock();
        if !interface.starts_with(&self.prefix) {
            return Err(io::Error::other(format!("{interface} is no interface of this Bay")));
        }
        Netlink::open()?.delete(interface)?;
        if *pool == self.pool {
            state.used.remove(subnet);
        }
        if state.used.is_empty() {
            // Another Bay's sandboxes may need it still.
            if !routes().iter().any(|route| route.interface.starts_with(ANY_BAY)) {
                firewall::turn_off(&self.memory)?;
            }
        }
        Ok(())
    }

    /// Makes the pair of interfaces, one end in the sandbox's network namespace, and brings the host's end up.
    pub(super) fn connect(attached: &Attached, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let Attached::Veth { interface, .. } = attached else { return Ok(()) };
        let mut netlink = Netlink::open()?;
        // A pair of an earlier start goes with its namespace, but only when the kernel gets round to it.
        netlink.delete(interface)?;
        netlink.add_veth(interface, INSIDE, namespace)?;
        let outcome = (|| {
            // Before it is up: no IPv6, replies only to where they came from, forwarding for this interface alone.
            for (family, key, value) in
                [("ipv6", "disable_ipv6", "1"), ("ipv4", "rp_filter", "1"), ("ipv4", "forwarding", "1")]
            {
                let file = Path::new("/proc/sys/net").join(family).join("conf").join(interface).join(key);
                match fs::write(file, value) {
                    // A kernel without IPv6 has none to turn off.
                    Err(error) if family == "ipv6" && error.kind() == io::ErrorKind::NotFound => {}
                    outcome => outcome?,
                }
            }
            let index = interface_index(interface)?;
            if let Some(addresses) = addresses(attached) {
                netlink.add_address(index, addresses.gateway, SUBNET_BITS)?;
            }
            netlink.up(index)
        })();
        if outcome.is_err() {
            let _ = netlink.delete(interface);
        }
        outcome
    }
}

impl Drop for Veths {
    /// The firewall outlives this Bay only where sandboxes do.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.installed.is_some()
            && state.used.is_empty()
            && let Err(error) = firewall::remove(&self.prefix)
        {
            tracing::warn!(%error, "the firewall's table was not removed");
        }
    }
}

/// The number of an interface in this thread's network namespace.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(name_to_index(&socket, name)?)
}

/// The two addresses in a network of the pool.
pub(super) fn addresses(attached: &Attached) -> Option<Addresses> {
    let Attached::Veth { subnet, pool, .. } = attached else { return None };
    let base = pool.to_bits() + (u32::from(*subnet) << (32 - SUBNET_BITS));
    Some(Addresses { gateway: Ipv4Addr::from_bits(base + 1), inside: Ipv4Addr::from_bits(base + 2) })
}

fn free_pool(routes: &[Route], resolvers: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    POOLS.into_iter().find(|pool| {
        // Bays share a pool: each sandbox has a small part of it.
        let others: Vec<&Route> =
            routes.iter().filter(|route| !route.interface.starts_with(ANY_BAY)).collect();
        !clashes(*pool, POOL_BITS, others.iter().copied())
            && !resolvers.iter().any(|resolver| same_network(*resolver, *pool, POOL_BITS))
    })
}

/// True when a route leads to a part of this network, or to more than it. The default route clashes with nothing.
fn clashes<'a>(network: Ipv4Addr, bits: u8, routes: impl IntoIterator<Item = &'a Route>) -> bool {
    routes.into_iter().any(|route| {
        let length = u8::try_from(route.mask.to_bits().count_ones()).unwrap_or(32);
        length > 0 && same_network(network, route.network, length.min(bits))
    })
}

/// The first part of the pool, from `first` on and around, that nobody has.
fn free_subnet(used: &BTreeSet<u16>, first: u16, taken: impl Fn(u16) -> bool) -> Option<u16> {
    (0..SUBNETS)
        .map(|offset| (first + offset) % SUBNETS)
        .find(|subnet| !used.contains(subnet) && !taken(*subnet))
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
