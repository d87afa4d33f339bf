//! One bridge network a session, from a pool of small subnets, and what user code may reach through it.
//!
//! The daemon keeps bridges apart; the routes that init sets inside keep user code from everything else that is not
//! meant for it. Where user code may reach no other machine, the bridge is internal and its resolver answers nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bay_ship_api::init::NetworkSetup;
use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest,
};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use serde::{Deserialize, Serialize};

use super::Inner;
use super::engine::Contact;
use super::names;
use crate::config::Connect;
use crate::driver::local::denied_prefixes;
use crate::driver::{DriverError, Network};

/// How often a subnet that somebody else took is replaced by another.
const TRIES: usize = 8;
/// How long a network may be busy with endpoints that are about to leave.
const DETACH_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks.
const DETACH_PAUSE: Duration = Duration::from_millis(50);
/// Every address, v4 and v6.
const EVERYTHING: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// The network of a container, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attached {
    pub(super) name: String,
    pub(super) subnet: Subnet,
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subnet {
    pub(super) base: Ipv4Addr,
    pub(super) length: u8,
}

impl Subnet {
    /// Reads `10.0.0.0/8`; bits behind the prefix must be zero.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (base, length) = text.split_once('/')?;
        let subnet = Self { base: base.parse().ok()?, length: length.parse().ok()? };
        (subnet.length <= 32 && subnet.base.to_bits() & !subnet.mask() == 0).then_some(subnet)
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0)
    }

    fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.base.to_bits() & mask == other.base.to_bits() & mask
    }

    fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits().wrapping_add(number))
    }

    fn size(self) -> u32 {
        1_u32.checked_shl(32 - u32::from(self.length)).unwrap_or(u32::MAX)
    }

    /// The daemon's own end.
    fn gateway(self) -> Ipv4Addr {
        self.address(1)
    }

    /// Kept for Bay, where Bay is a container itself.
    fn bay(self) -> Ipv4Addr {
        self.address(self.size() - 2)
    }

    /// Every address that a container of the session may have.
    fn members(self) -> impl Iterator<Item = Ipv4Addr> {
        (2..self.size() - 2).map(move |number| self.address(number))
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.length)
    }
}

/// Where subnets come from.
pub(super) struct Pool {
    whole: Subnet,
    length: u8,
    /// Those that a request under way asks for.
    claimed: Mutex<BTreeSet<u32>>,
}

impl Pool {
    /// Says what is wrong with the configuration.
    pub(super) fn new(whole: &str, length: u8) -> Result<Self, String> {
        let pool = Subnet::parse(whole)
            .ok_or_else(|| format!("subnet_pool: `{whole}` is not a network: write it as 10.213.0.0/16"))?;
        if !pool.base.is_private() {
            return Err(format!("subnet_pool: `{whole}` is not private: write it as 10.213.0.0/16"));
        }
        if !(24..=29).contains(&length) || length < pool.length || pool.length < 8 {
            return Err("subnet_length must be from 24 to 29 and not shorter than the pool's".to_owned());
        }
        Ok(Self { whole: pool, length, claimed: Mutex::default() })
    }

    fn count(&self) -> u32 {
        1 << (self.length - self.whole.length)
    }

    /// A subnet that is nobody's, at random so that two Bays on one daemon seldom meet.
    fn claim(&self, used: &[Subnet]) -> Option<Claim<'_>> {
        let mut random = [0_u8; 4];
        // Without randomness it starts at the beginning, which works as well.
        let _ = getrandom::fill(&mut random);
        let first = u32::from_ne_bytes(random) % self.count();
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        for offset in 0..self.count() {
            let number = (first + offset) % self.count();
            let size = 1_u32 << (32 - self.length);
            let subnet = Subnet { base: self.whole.address(number * size), length: self.length };
            if !used.iter().any(|other| other.overlaps(subnet)) && claimed.insert(number) {
                return Some(Claim { pool: self, number, subnet });
            }
        }
        None
    }
}

struct Claim<'a> {
    pool: &'a Pool,
    number: u32,
    subnet: Subnet,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.pool.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Whether a container has a network at all: without one it is reached by its socket.
pub(super) fn is_networked(policy: Network, connect: Connect) -> bool {
    policy != Network::None || connect != Connect::Socket
}

/// Whether its bridge has no way out. A published port works only on a bridge that has one.
pub(super) fn is_internal(policy: Network) -> bool {
    policy != Network::Egress
}

/// What init sets inside.
pub(super) fn setup(policy: Network, attached: Option<&Attached>, own: &[IpAddr]) -> NetworkSetup {
    let Some(subnet) = attached.map(|attached| attached.subnet) else { return NetworkSetup::None };
    let everything = EVERYTHING.map(str::to_owned).to_vec();
    match policy {
        Network::None => NetworkSetup::PolicyRoutes { deny: everything, allow: Vec::new() },
        Network::Egress => {
            let deny = denied_prefixes(own, Some((subnet.base, subnet.length)));
            NetworkSetup::PolicyRoutes { deny, allow: Vec::new() }
        }
        Network::Internal => {
            let allow = subnet.members().map(|address| address.to_string()).collect();
            NetworkSetup::PolicyRoutes { deny: everything, allow }
        }
    }
}

impl Inner {
    /// The network of a container, made if its session has none yet.
    pub(super) async fn network_create(
        &self,
        contact: &Contact,
        container: &str,
        policy: Network,
    ) -> Result<Attached, DriverError> {
        let name = names::network(container, policy);
        if let Some(subnet) = self.network_find(contact, &name).await? {
            return Ok(Attached { name, subnet });
        }
        let mut used = Vec::new();
        for _ in 0..TRIES {
            let Some(claim) = self.pool.claim(&used) else { break };
            let subnet = claim.subnet;
            match self
                .engine
                .call(contact.docker.create_network(self.network_request(container, &name, subnet, policy)))
                .await
            {
                Ok(_) => {
                    self.join(contact, &name, subnet).await?;
                    return Ok(Attached { name, subnet });
                }
                Err(failure) if failure.says("overlap") => {}
                Err(failure) => return Err(failure.into_error(&format!("make network {name}"))),
            }
            used = self.subnets(contact).await?;
            if !used.iter().any(|other| other.overlaps(subnet)) {
                // The host itself uses it: the daemon knows, its list of networks does not.
                used.push(subnet);
            }
        }
        let reason = format!(
            "no subnet of docker.subnet_pool {} is left ({} of length {}); widen the pool",
            self.pool.whole,
            self.pool.count(),
            self.pool.length,
        );
        Err(DriverError::Network { policy, reason })
    }

    fn network_request(
        &self,
        container: &str,
        name: &str,
        subnet: Subnet,
        policy: Network,
    ) -> NetworkCreateRequest {
        let config = IpamConfig {
            subnet: Some(subnet.to_string()),
            gateway: Some(subnet.gateway().to_string()),
            ..IpamConfig::default()
        };
        NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            internal: Some(is_internal(policy)),
            enable_ipv6: Some(false),
            ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
            labels: Some(names::of_network(&self.instance, container)),
            ..NetworkCreateRequest::default()
        }
    }

    /// The subnet of a network of ours.
    async fn network_find(&self, contact: &Contact, name: &str) -> Result<Option<Subnet>, DriverError> {
        let found = self.networks(contact, name).await?;
        Ok(found.into_iter().find(|n| n.name.as_deref() == Some(name)).and_then(|n| subnet_of(n.ipam)))
    }

    /// The containers for which networks of ours were made, whether they are there or not.
    pub(super) async fn networks_containers(&self, contact: &Contact) -> Result<Vec<String>, DriverError> {
        let found = self.networks(contact, names::NETWORK_PREFIX).await?;
        let container = |network: bollard::models::Network| {
            names::container_of(&network.name?, &network.labels?).map(str::to_owned)
        };
        Ok(found.into_iter().filter_map(container).collect())
    }

    /// Networks of ours whose names begin so.
    async fn networks(
        &self,
        contact: &Contact,
        prefix: &str,
    ) -> Result<Vec<bollard::models::Network>, DriverError> {
        let mut filters = names::own_filter(&self.instance);
        filters.insert("name".to_owned(), vec![prefix.to_owned()]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let found = self.engine.call(contact.docker.list_networks(Some(options))).await;
        let mut found = found.map_err(|failure| failure.into_error("list networks"))?;
        // The daemon's filter finds the text anywhere in a name.
        found.retain(|n| n.name.as_deref().is_some_and(|name| name.starts_with(prefix)));
        Ok(found)
    }

    /// Every subnet that the daemon uses.
    async fn subnets(&self, contact: &Contact) -> Result<Vec<Subnet>, DriverError> {
        let all = self.engine.call(contact.docker.list_networks(None)).await;
        let all = all.map_err(|failure| failure.into_error("list networks"))?;
        Ok(all.into_iter().filter_map(|network| subnet_of(network.ipam)).collect())
    }

    /// Lets Bay's own container into a session's network. Idempotent.
    pub(super) async fn join(
        &self,
        contact: &Contact,
        name: &str,
        subnet: Subnet,
    ) -> Result<(), DriverError> {
        let (Some(bay), Connect::ContainerNetwork) = (&contact.facts.own_container, contact.facts.connect)
        else {
            return Ok(());
        };
        let request =
            NetworkConnectRequest { container: bay.clone(), endpoint_config: Some(bays_endpoint(subnet)) };
        match self.engine.call(contact.docker.connect_network(name, request)).await {
            Err(failure) if !failure.says("already exists") => {
                Err(failure.into_error(&format!("join network {name}")))
            }
            _ => Ok(()),
        }
    }

    /// Removes the networks of a container's session, unless others of the session still use them. Idempotent.
    pub(super) async fn networks_remove(
        &self,
        contact: &Contact,
        container: &str,
    ) -> Result<(), DriverError> {
        for network in self.networks(contact, &names::networks(container)).await? {
            let (Some(id), Some(name)) = (network.id, network.name) else { continue };
            if let Some(bay) = &contact.facts.own_container {
                let request = NetworkDisconnectRequest { container: bay.clone(), force: Some(true) };
                // That it is not in there is no error; that it stays in there shows below.
                let _left = self.engine.call(contact.docker.disconnect_network(&id, request)).await;
            }
            self.network_remove(contact, &id, &name, &names::siblings(container)).await?;
        }
        Ok(())
    }

    /// Somebody else's container in it is no reason to forget it: it is an error, so that it is tried again.
    async fn network_remove(
        &self,
        contact: &Contact,
        id: &str,
        name: &str,
        siblings: &str,
    ) -> Result<(), DriverError> {
        let deadline = tokio::time::Instant::now() + DETACH_LIMIT;
        loop {
            match self.engine.call(contact.docker.remove_network(id)).await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.is(404) => return Ok(()),
                Err(failure) if failure.says("active endpoints") => {
                    let inside = self.engine.call(contact.docker.inspect_network(id, None)).await;
                    let others = inside.ok().and_then(|n| n.containers).unwrap_or_default();
                    if others.values().any(|c| c.name.as_deref().is_some_and(|n| n.starts_with(siblings))) {
                        // The last container of the session takes it along.
                        return Ok(());
                    }
                    if tokio::time::Instant::now() > deadline {
                        return Err(failure.into_error(&format!("remove network {name}")));
                    }
                }
                Err(failure) => return Err(failure.into_error(&format!("remove network {name}"))),
            }
            tokio::time::sleep(DETACH_PAUSE).await;
        }
    }
}

/// How Bay's own container is put into a session's network: its default route stays where it is.
fn bays_endpoint(subnet: Subnet) -> EndpointSettings {
    let ipam =
        EndpointIpamConfig { ipv4_address: Some(subnet.bay().to_string()), ..EndpointIpamConfig::default() };
    // Daemons before API 1.48 do not know it; they go by the network's name.
    EndpointSettings { ipam_config: Some(ipam), gw_priority: Some(-1), ..EndpointSettings::default() }
}

/// How a container is put into its network.
pub(super) fn endpoints(attached: &str) -> HashMap<String, EndpointSettings> {
    HashMap::from([(attached.to_owned(), EndpointSettings::default())])
}

fn subnet_of(ipam: Option<Ipam>) -> Option<Subnet> {
    ipam?.config?.into_iter().find_map(|config| Subnet::parse(&config.subnet?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_each_subnet_once_and_then_none() {
        let pool = Pool::new("10.9.0.0/27", 28).unwrap();
        let first = pool.claim(&[]).unwrap();
        let second = pool.claim(&[]).unwrap();
        assert_ne!(first.subnet, second.subnet);
        assert!(pool.claim(&[]).is_none());
        drop(first);
        let taken = Subnet::parse("10.9.0.0/24").unwrap();
        assert!(pool.claim(&[taken]).is_none());
        assert!(pool.claim(&[]).is_some());
    }

    #[test]
    fn pools_that_are_none_are_refused() {
        for (pool, length) in
            [("10.9.0.1/16", 28), ("8.8.0.0/16", 28), ("x", 28), ("10.9.0.0/28", 24), ("10.9.0.0/16", 30)]
        {
            assert!(Pool::new(pool, length).is_err(), "{pool} {length}");
        }
    }

    #[test]
    fn bays_own_container_takes_its_default_route_from_no_session() {
        let endpoint = bays_endpoint(Subnet::parse("10.9.0.16/29").unwrap());
        assert_eq!(endpoint.gw_priority, Some(-1));
        assert_eq!(endpoint.ipam_config.unwrap().ipv4_address.as_deref(), Some("10.9.0.22"));
    }

    #[test]
    fn siblings_are_reached_and_neither_gateway_nor_bay() {
        let subnet = Subnet::parse("10.9.0.16/29").unwrap();
        let attached = Attached { name: "n".to_owned(), subnet };
        let NetworkSetup::PolicyRoutes { deny, allow } = setup(Network::Internal, Some(&attached), &[])
        else {
            panic!("no routes");
        };
        assert_eq!(deny, EVERYTHING);
        assert_eq!(allow, ["10.9.0.18", "10.9.0.19", "10.9.0.20", "10.9.0.21"]);
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 9, 0, 17));
        assert_eq!(subnet.bay(), Ipv4Addr::new(10, 9, 0, 22));
        assert_eq!(setup(Network::None, None, &[]), NetworkSetup::None);
    }
}
