//! Names and labels of everything that Bay makes in a daemon. Names come from ids alone, so that whoever knows a
//! container's name finds all that was made for it.

use std::collections::HashMap;

use crate::driver::{DriverError, Network};

/// Says whose container, network or volume it is.
pub(super) const INSTANCE: &str = "bay.instance";
/// Says for which container a network was made. Anybody can write it: see [`container_of`].
const CONTAINER: &str = "bay.container";
/// What every container of Bay is called first.
pub(super) const PREFIX: &str = "bay-";
/// What every network is called first. Daemons before API 1.48 give a container its default route from the first of
/// its networks by name: a Bay that is a container itself keeps its own.
pub(super) const NETWORK_PREFIX: &str = "zz-bay-net-";
/// What every locker's volume is called first.
const LOCKER_PREFIX: &str = "bay-locker-";
/// What every container's volume for output is called first.
const SPOOL_PREFIX: &str = "bay-spool-";
/// Longest name of a container or volume.
const MAX_NAME: usize = 128;
/// Length of the random part of an id.
const ULID: usize = 26;

/// Refuses what Bay never made as a name: it becomes part of a URL and of a path.
pub(super) fn checked(name: &str) -> Result<&str, DriverError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() <= MAX_NAME && name.bytes().all(good) {
        Ok(name)
    } else {
        Err(DriverError::Missing(name.chars().take(MAX_NAME).collect()))
    }
}

/// The part of a container's name that all containers of its session share.
fn session(container: &str) -> &str {
    let rest = container.strip_prefix(PREFIX).unwrap_or(container);
    // `ses-<id>-<generation>-<role>`; anything else stands for itself.
    let generation = rest.strip_prefix("ses-").and_then(|ids| ids.get(ULID + 1..));
    match generation.and_then(|text| text.find('-')) {
        Some(at) => rest.get(.."ses-".len() + ULID + 1 + at).unwrap_or(rest),
        None => rest,
    }
}

/// What the names of all containers of a container's session begin with.
pub(super) fn siblings(container: &str) -> String {
    format!("{PREFIX}{}-", session(container))
}

/// What the names of all networks of a container's session begin with.
pub(super) fn networks(container: &str) -> String {
    format!("{NETWORK_PREFIX}{}.", session(container))
}

/// The network of a container: one a session, but one of its own where it may reach nothing.
pub(super) fn network(container: &str, policy: Network) -> String {
    let all = networks(container);
    match policy {
        Network::Egress => format!("{all}egress"),
        Network::Internal => format!("{all}internal"),
        Network::None => {
            let role = container.strip_prefix(PREFIX).unwrap_or(container);
            let role = role.strip_prefix(session(container)).unwrap_or_default().trim_start_matches('-');
            format!("{all}none.{role}")
        }
    }
}

/// The container for which a network of ours was made: its label counts only where it fits the network's name.
pub(super) fn container_of<'a>(network: &str, labels: &'a HashMap<String, String>) -> Option<&'a str> {
    let container = labels.get(CONTAINER).filter(|name| name.starts_with(PREFIX))?;
    (checked(container).is_ok() && network.starts_with(&networks(container))).then_some(container.as_str())
}

/// The labels of a network: its name alone does not say which role's container it was made for.
pub(super) fn of_network(instance: &str, container: &str) -> HashMap<String, String> {
    let mut labels = own(instance);
    labels.insert(CONTAINER.to_owned(), container.to_owned());
    labels
}

/// The volume of a locker.
pub(super) fn locker(id: &str) -> String {
    format!("{LOCKER_PREFIX}{id}")
}

/// The volume on which a container keeps long output. It has a name and not just a place, so that it is found after
/// somebody removed the container by hand.
pub(super) fn spool(container: &str) -> String {
    format!("{SPOOL_PREFIX}{}", container.strip_prefix(PREFIX).unwrap_or(container))
}

/// True for the name of a locker's volume.
pub(super) fn is_locker(volume: &str) -> bool {
    volume.starts_with(LOCKER_PREFIX) && checked(volume).is_ok()
}

/// The one label by which this Bay finds its own.
pub(super) fn own(instance: &str) -> HashMap<String, String> {
    HashMap::from([(INSTANCE.to_owned(), instance.to_owned())])
}

/// The same as a filter of the daemon's lists.
pub(super) fn own_filter(instance: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![format!("{INSTANCE}={instance}")])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_a_session_share_a_network_and_no_other_session_does() {
        let first = "bay-ses-01k0000000000000000000000a-3-ship";
        let second = "bay-ses-01k0000000000000000000000a-3-my-browser";
        let next = "bay-ses-01k0000000000000000000000a-31-ship";
        assert_eq!(network(first, Network::Egress), "zz-bay-net-ses-01k0000000000000000000000a-3.egress");
        assert_eq!(network(first, Network::Egress), network(second, Network::Egress));
        assert_ne!(network(first, Network::None), network(second, Network::None));
        assert!(!network(next, Network::Egress).starts_with(&networks(first)));
        assert!(network(second, Network::None).starts_with(&networks(first)));
        assert!(second.starts_with(&siblings(first)) && !next.starts_with(&siblings(first)));
        assert!(!"bay-of-somebody".starts_with(&siblings(first)));
    }

    #[test]
    fn a_sessions_network_is_no_containers_first_by_name() {
        let network = network("bay-ses-01k0000000000000000000000a-3-ship", Network::Egress);
        for usual in ["bay-net", "bay_default", "bridge", "my-project_default"] {
            assert!(usual < network.as_str(), "{usual}");
        }
    }

    #[test]
    fn a_networks_label_counts_where_it_fits_its_name() {
        let ship = "bay-ses-01k0000000000000000000000a-3-ship";
        let labels = of_network("here", ship);
        for policy in [Network::Egress, Network::None] {
            assert_eq!(container_of(&network(ship, policy), &labels), Some(ship));
        }
        let another = network("bay-ses-01k0000000000000000000000a-31-ship", Network::Egress);
        assert_eq!(container_of(&another, &labels), None);
        assert_eq!(container_of(&network(ship, Network::Egress), &own("here")), None);
    }

    #[test]
    fn a_name_that_is_no_part_of_a_url_is_refused() {
        for bad in ["", "-a", "a/b", "a?b", "a b", "é", ".."] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
        assert!(checked("bay-ses-1_x.y").is_ok());
        assert!(is_locker("bay-locker-lkr_1") && !is_locker("bay-ship-1") && !is_locker("bay-locker-/"));
    }
}
