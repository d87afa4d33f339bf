//! Addresses and routes, as text and numbers.

use super::*;

#[test]
fn every_private_and_special_address_is_covered() {
    for address in [
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "127.0.0.53",
        "0.0.0.0",
        "224.0.0.251",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.0.192",
        "240.0.0.1",
    ] {
        assert!(covered(address.parse().unwrap(), &DENIED), "{address}");
    }
    for address in ["1.1.1.1", "172.32.0.1", "172.15.255.255", "192.167.1.1", "100.128.0.1", "11.0.0.1"] {
        assert!(!covered(address.parse().unwrap(), &DENIED), "{address}");
    }
}

#[test]
fn the_hosts_own_public_addresses_are_denied_too() {
    let own = ["203.0.113.7".parse().unwrap(), "10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let list = denied_prefixes(&own, Some((Ipv4Addr::new(203, 0, 113, 64), 30)));
    for wanted in
        ["203.0.113.7/32", "203.0.113.64/30", "2001:db8::1/128", "fc00::/7", "::ffff:0:0/96", "10.0.0.0/8"]
    {
        assert!(list.iter().any(|entry| entry == wanted), "{wanted} in {list:?}");
    }
    assert!(!list.iter().any(|entry| entry == "10.0.0.1/32"), "covered already");
}

#[test]
fn a_resolver_on_the_hosts_loopback_is_of_no_use() {
    let text = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2 # x\nnameserver ::1\nnameserver 10.0.0.2\nsearch corp\n";
    assert_eq!(parse_resolvers(text), [Ipv4Addr::new(10, 0, 0, 2)]);
    assert!(parse_resolvers("nameserver 127.0.0.1\noptions edns0\n").is_empty());
}

#[test]
fn a_pool_that_clashes_with_a_route_is_passed_over() {
    let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        tun0\t0000D20A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        byabc-3\t0C00D30A\t00000000\t0001\t0\t0\t0\tFCFFFFFF\t0\t0\t0\n";
    let routes = parse_routes(table);
    assert_eq!(routes[1].network, Ipv4Addr::new(10, 210, 0, 0));
    assert_eq!(uplinks(&routes), BTreeSet::from(["eth0".to_owned()]));
    // Another Bay's part of a pool is no clash.
    assert_eq!(free_pool(&routes, &[]), Some(Ipv4Addr::new(10, 211, 0, 0)));
    let resolver = Ipv4Addr::new(10, 211, 3, 4);
    assert_eq!(free_pool(&routes, &[resolver]), Some(Ipv4Addr::new(172, 30, 0, 0)));
    let vpn = [Route {
        interface: "wg0".into(),
        network: Ipv4Addr::new(10, 0, 0, 0),
        mask: Ipv4Addr::new(255, 0, 0, 0),
    }];
    assert_eq!(free_pool(&vpn, &[]), Some(Ipv4Addr::new(172, 30, 0, 0)));
    // But exactly that part is taken.
    assert!(clashes(Ipv4Addr::new(10, 211, 0, 12), SUBNET_BITS, &routes));
    assert!(!clashes(Ipv4Addr::new(10, 211, 0, 16), SUBNET_BITS, &routes));
}

#[test]
fn parts_of_a_pool_are_given_from_the_first_on_and_around() {
    let used = BTreeSet::from([SUBNETS - 1, 0]);
    assert_eq!(free_subnet(&used, SUBNETS - 1, |_| false), Some(1));
    assert_eq!(free_subnet(&used, SUBNETS - 1, |subnet| subnet < 7), Some(7));
    assert_eq!(free_subnet(&used, 5, |_| true), None);
}

#[test]
fn networks_of_a_pool_do_not_overlap() {
    let of = |subnet| addresses(&Attached::Veth { interface: "x".into(), subnet, pool: POOLS[0] }).unwrap();
    assert_eq!(of(0).gateway, Ipv4Addr::new(10, 210, 0, 1));
    assert_eq!(of(1).inside, Ipv4Addr::new(10, 210, 0, 6));
    assert_eq!(of(SUBNETS - 1).inside, Ipv4Addr::new(10, 210, 255, 254));
}
