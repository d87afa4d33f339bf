//! The wall outside: an nftables table of this Bay's own, written once for all its sandboxes.
//!
//! Rules match on the prefix that every interface of this Bay has, so that a new sandbox needs no new rule. The text
//! is made of numbers and of names that this driver chose or the kernel gave; nothing of a client's is in it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::command;
use super::identity::boot_id;
use super::network::{ANY_BAY, DENIED, POOL_BITS};

/// nft answers in some 10 ms; a machine that swaps may take longer.
const NFT_LIMIT: Duration = Duration::from_secs(10);

/// What the table depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// Every interface of this Bay starts so.
    pub(super) prefix: String,
    /// Where sandboxes' addresses come from.
    pub(super) pool: Ipv4Addr,
    /// Exempt on port 53.
    pub(super) resolvers: Vec<Ipv4Addr>,
    /// Uplinks that forward for the sandboxes' sake alone.
    pub(super) turned: BTreeSet<String>,
}

/// Interfaces on which Bay turned forwarding on, to be turned off again.
#[derive(Debug, Serialize, Deserialize)]
struct Turned {
    boot_id: String,
    interfaces: BTreeSet<String>,
}

/// Says why there can be no firewall.
pub(super) fn available() -> Result<(), String> {
    match command::run("nft", &["list", "tables"], None, NFT_LIMIT) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("nftables is not installed (nft)".to_owned())
        }
        Err(error) => Err(format!("nftables does not work here: {error}")),
    }
}

fn table(prefix: &str) -> String {
    format!("bay_{}", prefix.trim_end_matches('-'))
}

/// Replaces the table in one transaction. Some 20 ms: not for the path of a start.
pub(super) fn install(rules: &Rules) -> io::Result<()> {
    command::run("nft", &["-f", "-"], Some(&script(rules)), NFT_LIMIT)?;
    pass_others(rules)
}

/// Removes the table.
pub(super) fn remove(prefix: &str) -> io::Result<()> {
    let table = table(prefix);
    // Declared first, so that removing what isn't there is no error.
    let text = format!("table inet {table}\ndelete table inet {table}\n");
    command::run("nft", &["-f", "-"], Some(&text), NFT_LIMIT).map(drop)
}

/// Turns forwarding off where Bay turned it on, unless the machine has become a router meanwhile.
pub(super) fn turn_off(memory: &Path) -> io::Result<()> {
    if !is_router()? {
        for interface in remembered(memory) {
            let _ = fs::write(forwarding(&interface), "0");
        }
    }
    match fs::remove_file(memory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_router() -> io::Result<bool> {
    Ok(fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?.trim() == "1")
}

fn forwarding(interface: &str) -> std::path::PathBuf {
    Path::new("/proc/sys/net/ipv4/conf").join(interface).join("forwarding")
}

fn remembered(memory: &Path) -> BTreeSet<String> {
    let turned = fs::read(memory).ok().and_then(|text| serde_json::from_slice::<Turned>(&text).ok());
    match (turned, boot_id()) {
        (Some(turned), Ok(boot)) if turned.boot_id == boot => turned.interfaces,
        _ => BTreeSet::new(),
    }
}

/// Answers to a sandbox come in through an uplink, so that must forward too. Where the machine is no router already,
/// only these interfaces are made to, and the table lets them forward to sandboxes and nowhere else: these are they.
pub(super) fn to_turn_on(uplinks: &BTreeSet<String>, memory: &Path) -> io::Result<BTreeSet<String>> {
    if is_router()? {
        return Ok(BTreeSet::new());
    }
    let turned = remembered(memory);
    let closed =
        |interface: &&String| fs::read_to_string(forwarding(interface)).is_ok_and(|on| on.trim() == "0");
    Ok(uplinks.iter().filter(|interface| turned.contains(*interface) || closed(interface)).cloned().collect())
}

/// Turns forwarding on for these, noted beforehand.
pub(super) fn turn_on(interfaces: &BTreeSet<String>, memory: &Path) -> io::Result<()> {
    if interfaces.is_empty() {
        return Ok(());
    }
    let note = Turned { boot_id: boot_id()?, interfaces: interfaces.clone() };
    fs::write(memory, serde_json::to_vec(&note).map_err(io::Error::other)?)?;
    for interface in interfaces {
        fs::write(forwarding(interface), "1")?;
    }
    Ok(())
}

fn script(rules: &Rules) -> String {
    let Rules { prefix, pool, resolvers, turned } = rules;
    let table = table(prefix);
    let list = |parts: Vec<String>| parts.join(", ");
    let denied = list(DENIED.iter().map(|(address, bits)| format!("{address}/{bits}")).collect());
    let dns = if resolvers.is_empty() {
        String::new()
    } else {
        let resolvers = list(resolvers.iter().map(ToString::to_string).collect());
        format!("ip daddr {{ {resolvers} }} meta l4proto {{ tcp, udp }} th dport 53 accept")
    };
    let guard: String = turned
        .iter()
        .map(|interface| format!("iifname \"{interface}\" oifname != \"{ANY_BAY}*\" drop\n"))
        .collect();
    format!(
        r#"table inet {table}
delete table inet {table}
table inet {table} {{
  chain from_sandbox {{
    meta nfproto != ipv4 drop
    ip saddr != {pool}/{POOL_BITS} drop
    {dns}
    ip daddr {{ {denied} }} drop
    oifname "{prefix}*" drop
    tcp flags syn tcp option maxseg size set rt mtu
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "{prefix}*" goto from_sandbox
    oifname "{prefix}*" ct state established,related accept
    oifname "{prefix}*" drop
    {guard}
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname "{prefix}*" goto to_host
  }}
  chain to_host {{
    meta nfproto != ipv4 drop
    ip saddr != {pool}/{POOL_BITS} drop
    {dns}
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {pool}/{POOL_BITS} oifname != "{prefix}*" masquerade
  }}
}}
"#
    )
}

/// Another firewall whose forward chain drops by default (Docker's, for instance) would drop what ours lets through:
/// tell it to let our interfaces pass. Ours has had its say by then, its priority comes first.
fn pass_others(rules: &Rules) -> io::Result<()> {
    let Ok(chain) = command::run("nft", &["list", "chain", "ip", "filter", "FORWARD"], None, NFT_LIMIT)
    else {
        return Ok(());
    };
    let prefix = &rules.prefix;
    if !chain.contains("policy drop") || chain.contains(prefix.as_str()) {
        return Ok(());
    }
    let text = format!(
        "insert rule ip filter FORWARD iifname \"{prefix}*\" accept\n\
         insert rule ip filter FORWARD oifname \"{prefix}*\" ct state established,related accept\n"
    );
    command::run("nft", &["-f", "-"], Some(&text), NFT_LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            prefix: "byabc123-".into(),
            pool: Ipv4Addr::new(10, 210, 0, 0),
            resolvers: vec![Ipv4Addr::new(10, 0, 0, 2)],
            turned: BTreeSet::new(),
        }
    }

    #[test]
    fn the_resolver_is_let_through_before_the_private_range_it_is_in_is_dropped() {
        let text = script(&rules());
        let at = |needle: &str| text.find(needle).unwrap();
        assert!(at("th dport 53 accept") < at("10.0.0.0/8"));
        assert!(at("ip saddr != 10.210.0.0/16 drop") < at("th dport 53 accept"));
    }

    #[test]
    fn an_uplink_that_bay_made_forward_forwards_to_sandboxes_only() {
        let text = script(&Rules { turned: BTreeSet::from(["eth0".to_owned()]), ..rules() });
        assert!(text.contains("iifname \"eth0\" oifname != \"by*\" drop"));
    }

    #[test]
    fn what_another_boot_turned_on_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let memory = dir.path().join("forwarding.json");
        let interfaces = BTreeSet::from(["eth0".to_owned()]);
        let write = |boot_id: String| {
            fs::write(
                &memory,
                serde_json::to_vec(&Turned { boot_id, interfaces: interfaces.clone() }).unwrap(),
            )
            .unwrap();
        };
        write("another".into());
        assert!(remembered(&memory).is_empty());
        write(boot_id().unwrap());
        assert_eq!(remembered(&memory), interfaces);
    }
}
