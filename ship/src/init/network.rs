//! The network rules that init sets from inside, before it gives up NET_ADMIN.
//!
//! Policy routing for user code only: what is denied is unreachable for it, while the container's own addresses
//! (the local table is asked first) and everything not denied work as before.
//!
//! "Unreachable" alone does not hold (*tried*): for a message tied to an interface (`SO_BINDTODEVICE`, which
//! seccomp refuses, and `IP_PKTINFO`, `IPV6_PKTINFO` and scope ids, which it cannot) IPv4 takes a destination
//! without a route for a neighbour, and IPv6 passes over routes that are not of that interface; so every address of
//! the machine at the other end answers. Such packets are therefore routed, by a rule of their own, to a neighbour
//! that does not exist.
//!
//! What stays possible is to send multicast and broadcast on the link: the kernel asks no rule there, and only the
//! other end can refuse them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bay_ship_api::USER_ID;
use bay_ship_api::init::NetworkSetup;

use super::Stop;
use super::netlink::{Message, Netlink, Prefix, Which};

/// Number of the table that holds the unreachable routes.
const TABLE: u32 = 8123;
const MAIN_TABLE: u32 = 254;
/// From here on one table an interface, with the routes to nobody.
const NOBODY_TABLE: u32 = 8200;
/// Rules are asked in this order, all before the main table's own 32766.
const ALLOW_PRIORITY: u32 = 1000;
const TIED_PRIORITY: u32 = 1001;
const DENY_PRIORITY: u32 = 1002;
/// The neighbour that does not exist: addresses that are never anybody's, and a hardware address that is nobody's,
/// set for good so that no question about it is ever asked on the link.
const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));
const NOBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xdead, 0xbea7));
const NOBODY_HARDWARE: [u8; 6] = [0x02, 0, 0, 0, 0, 0];
const LOOPBACK_INDEX: i32 = 1;
/// More prefixes than this are a mistake of the driver.
const MAX_PREFIXES: usize = 1024;

/// Does what the configuration asks, or says why it cannot be done: a container never runs with less.
pub(super) fn set_up(setup: &NetworkSetup) -> Result<(), Stop> {
    match setup {
        NetworkSetup::None | NetworkSetup::Enforced => {
            // Where init may; the host side has done it where not.
            if let Ok(mut netlink) = Netlink::open() {
                let _ = netlink.ask(&Message::link_up(LOOPBACK_INDEX));
            }
            Ok(())
        }
        NetworkSetup::PolicyRoutes { deny, allow } => policy_routes(deny, allow),
    }
}

fn policy_routes(deny: &[String], allow: &[String]) -> Result<(), Stop> {
    let (deny, allow) = (prefixes(deny)?, prefixes(allow)?);
    let mut netlink = Netlink::open().map_err(|error| format!("network rules: {error}"))?;
    let _ = netlink.ask(&Message::link_up(LOOPBACK_INDEX));
    let user = (USER_ID, USER_ID);
    for to in allow {
        let family = family(to);
        apply(
            &mut netlink,
            &Message::rule(family, ALLOW_PRIORITY, user, &Which::To(to), MAIN_TABLE),
            family,
        )?;
    }
    for (table, interface) in (NOBODY_TABLE..).zip(&interfaces()?) {
        tied_to(&mut netlink, interface, table, &deny)?;
    }
    for family in FAMILIES {
        apply(&mut netlink, &Message::rule(family, DENY_PRIORITY, user, &Which::All, TABLE), family)?;
    }
    for to in deny {
        apply(&mut netlink, &Message::unreachable(to, TABLE), family(to))?;
    }
    Ok(())
}

const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

struct Interface {
    name: String,
    index: u32,
}

/// All interfaces but the loopback.
fn interfaces() -> Result<Vec<Interface>, Stop> {
    let failed = |error: io::Error| format!("network rules: interfaces: {error}");
    let list = std::fs::read_to_string("/proc/net/dev").map_err(failed)?;
    let any = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)
        .map_err(|error| failed(error.into()))?;
    // Two lines of headings, then `name: counters`.
    let names = list.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names
        .filter(|name| *name != "lo")
        .map(|name| {
            let index =
                rustix::net::netdevice::name_to_index(&any, name).map_err(|error| failed(error.into()))?;
            Ok(Interface { name: name.to_owned(), index })
        })
        .collect()
}

/// Sends what is tied to an interface and denied to the neighbour that does not exist.
fn tied_to(netlink: &mut Netlink, interface: &Interface, table: u32, deny: &[Prefix]) -> Result<(), Stop> {
    let without_v6 = ipv6_is_off(&interface.name);
    for (family, nobody) in FAMILIES.into_iter().zip([NOBODY_V4, NOBODY_V6]) {
        if nobody.is_ipv6() && without_v6 {
            continue;
        }
        let neighbour = Message::neighbour(nobody, NOBODY_HARDWARE, interface.index);
        apply(netlink, &neighbour, family)?;
        let rule =
            Message::rule(family, TIED_PRIORITY, (USER_ID, USER_ID), &Which::TiedTo(&interface.name), table);
        apply(netlink, &rule, family)?;
    }
    for to in deny {
        if to.address.is_ipv6() && without_v6 {
            continue;
        }
        let nobody = if to.address.is_ipv4() { NOBODY_V4 } else { NOBODY_V6 };
        apply(netlink, &Message::via(*to, nobody, interface.index, table), family(*to))?;
    }
    Ok(())
}

/// True where the interface carries no IPv6: the kernel takes no neighbour or route there, and drops what is tied
/// to it. Only whoever owns the network namespace can turn it on again.
fn ipv6_is_off(interface: &str) -> bool {
    let setting = std::path::Path::new("/proc/sys/net/ipv6/conf").join(interface).join("disable_ipv6");
    std::fs::read_to_string(setting).is_ok_and(|text| text.trim() == "1")
}

fn prefixes(list: &[String]) -> Result<Vec<Prefix>, Stop> {
    if list.len() > MAX_PREFIXES {
        return Err(format!("network rules: more than {MAX_PREFIXES} prefixes"));
    }
    list.iter()
        .map(|text| {
            Prefix::parse(text).ok_or_else(|| format!("network rules: {text:?} is not an address or prefix"))
        })
        .collect()
}

fn family(prefix: Prefix) -> u8 {
    (if prefix.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn apply(netlink: &mut Netlink, message: &Message, family: u8) -> Result<(), Stop> {
    let Err(error) = netlink.ask(message) else { return Ok(()) };
    match error.raw_os_error() {
        Some(libc::EEXIST) => Ok(()),
        // No IPv6 in this kernel or namespace: nothing can be reached by it either.
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
            if family == libc::AF_INET6 as u8 && !std::path::Path::new("/proc/net/if_inet6").exists() =>
        {
            Ok(())
        }
        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP) => Err(
            "network rules: this kernel has no policy routing (CONFIG_IP_MULTIPLE_TABLES), so the profile's \
             network policy cannot be given; use a profile with `network = \"none\"`"
                .into(),
        ),
        Some(libc::EPERM) => Err(permission()),
        _ => Err(format!("network rules: {}", describe(&error))),
    }
}

fn permission() -> Stop {
    "network rules: init has no NET_ADMIN in this container's network namespace".into()
}

fn describe(error: &io::Error) -> String {
    format!("the kernel answered {error}")
}
