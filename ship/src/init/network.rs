//! The network rules that init sets from inside, before it gives up NET_ADMIN.
//!
//! Policy routing for user code only: what is denied is unreachable for it, while the container's own addresses
//! (the local table is asked first) and everything not denied work as before. What user code can still do with
//! a socket tied to a device, seccomp refuses.

use std::io;

use bay_ship_api::USER_ID;
use bay_ship_api::init::NetworkSetup;

use super::Stop;
use super::netlink::{Message, Netlink, Prefix};

/// Number of the table that holds the unreachable routes.
const TABLE: u32 = 8123;
const MAIN_TABLE: u32 = 254;
/// Rules are asked in this order, both before the main table's own 32766.
const ALLOW_PRIORITY: u32 = 1000;
const DENY_PRIORITY: u32 = 1001;
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
        apply(&mut netlink, &Message::rule(family, ALLOW_PRIORITY, user, Some(to), MAIN_TABLE), family)?;
    }
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        apply(&mut netlink, &Message::rule(family, DENY_PRIORITY, user, None, TABLE), family)?;
    }
    for to in deny {
        apply(&mut netlink, &Message::unreachable(to, TABLE), family(to))?;
    }
    Ok(())
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
