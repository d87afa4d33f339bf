//! The few routing-netlink messages this driver sends: interfaces, addresses, routes. Faster than a process each
//! for `ip`, and no text is parsed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;

const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const NESTED: u16 = 0x8000;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_GATEWAY: u16 = 5;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const FR_ACT_TO_TABLE: u8 = 1;
const FRA_DST: u16 = 1;
const FRA_PRIORITY: u16 = 6;
const FRA_IP_PROTO: u16 = 22;
const FRA_DPORT_RANGE: u16 = 24;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;

/// The table that ordinary routes are in.
pub(super) const MAIN_TABLE: u8 = 254;

/// The kernel answers at once; this is for the day it doesn't.
const ANSWER: Duration = Duration::from_secs(5);

/// A socket to the kernel's routing tables, in the network namespace in which it was opened.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A message under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        Self(bytes)
    }

    /// `struct ifinfomsg`.
    fn interface(&mut self, index: u32, flags: u32) -> &mut Self {
        self.0.extend([AF_UNSPEC, 0, 0, 0]);
        self.0.extend(index.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self.0.extend(flags.to_ne_bytes());
        self
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        // Values here are names, addresses and numbers: far below the 64 KiB that the length can say.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.pad();
        self
    }

    fn name(&mut self, name: &str) -> &mut Self {
        let mut value = name.as_bytes().to_vec();
        value.push(0);
        self.attribute(IFLA_IFNAME, &value)
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.len();
        self.0.extend([0; 4]);
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn message(&mut self, kind: u16, flags: u16) -> Message {
        self.sequence += 1;
        Message::new(kind, flags, self.sequence)
    }

    /// Sends and waits for the kernel's yes or no.
    fn request(&mut self, message: Message) -> io::Result<()> {
        send(&self.socket, &message.finish(), SendFlags::empty())?;
        let mut buffer = vec![0_u8; 8192];
        let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
        for (kind, sequence, body) in messages(&buffer[..length]) {
            if kind == NLMSG_ERROR && sequence == self.sequence {
                return match number(body, 0) {
                    Some(0) => Ok(()),
                    Some(code) => Err(io::Error::from_raw_os_error(code.wrapping_neg().cast_signed())),
                    None => break,
                };
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "no answer from the kernel's routing socket"))
    }

    /// Makes a pair of virtual interfaces: `name` here, `peer` in another network namespace. Both are down.
    pub(super) fn add_veth(&mut self, name: &str, peer: &str, namespace: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = self.message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        let descriptor = namespace.as_raw_fd().to_ne_bytes();
        message.interface(0, 0).name(name).nest(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_KIND, b"veth").nest(IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |other| {
                    other.interface(0, 0).name(peer).attribute(IFLA_NET_NS_FD, &descriptor);
                });
            });
        });
        self.request(message)
    }

    /// Brings an interface up.
    pub(super) fn up(&mut self, index: u32) -> io::Result<()> {
        let mut message = self.message(RTM_NEWLINK, NLM_F_ACK);
        message.interface(index, IFF_UP);
        self.request(message)
    }

    /// Removes an interface by name; one that isn't there is no error.
    pub(super) fn delete(&mut self, name: &str) -> io::Result<()> {
        let mut message = self.message(RTM_DELLINK, NLM_F_ACK);
        message.interface(0, 0).name(name);
        match self.request(message) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
            outcome => outcome,
        }
    }

    /// Gives an interface an IPv4 address.
    pub(super) fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = self.message(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        message.0.extend([AF_INET, prefix, 0, 0]);
        message.0.extend(index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &address.octets()).attribute(IFA_ADDRESS, &address.octets());
        self.request(message)
    }

    /// Sends everything that has no other route to `gateway`.
    pub(super) fn add_default_route(&mut self, gateway: Ipv4Addr) -> io::Result<()> {
        let mut message = self.message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE);
        message.0.extend(header(0, MAIN_TABLE, RTPROT_STATIC, RTN_UNICAST));
        message.attribute(RTA_GATEWAY, &gateway.octets());
        self.request(message)
    }

    /// Makes a prefix unreachable for whoever looks into this table.
    pub(super) fn add_unreachable(&mut self, table: u8, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = self.message(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE);
        message.0.extend(header(prefix, table, RTPROT_STATIC, RTN_UNREACHABLE));
        message.attribute(RTA_DST, &address.octets());
        self.request(message)
    }

    /// Has a table looked into for everything, before rules of a higher `priority`.
    pub(super) fn add_rule(&mut self, priority: u32, table: u8) -> io::Result<()> {
        let mut message = self.message(RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        message.0.extend(header(0, table, 0, FR_ACT_TO_TABLE));
        message.attribute(FRA_PRIORITY, &priority.to_ne_bytes());
        self.request(message)
    }

    /// The same for one port of one address, over one protocol (6 is TCP, 17 UDP).
    pub(super) fn add_port_rule(
        &mut self,
        priority: u32,
        table: u8,
        to: Ipv4Addr,
        protocol: u8,
        port: u16,
    ) -> io::Result<()> {
        let mut message = self.message(RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        message.0.extend(header(32, table, 0, FR_ACT_TO_TABLE));
        let range = [port.to_ne_bytes(), port.to_ne_bytes()].concat();
        message.attribute(FRA_DST, &to.octets()).attribute(FRA_PRIORITY, &priority.to_ne_bytes());
        message.attribute(FRA_IP_PROTO, &[protocol]).attribute(FRA_DPORT_RANGE, &range);
        self.request(message)
    }

    /// Every address of this network namespace, v4 and v6.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        let mut message = self.message(RTM_GETADDR, NLM_F_DUMP);
        message.0.extend([AF_UNSPEC, 0, 0, 0]);
        message.0.extend(0_u32.to_ne_bytes());
        send(&self.socket, &message.finish(), SendFlags::empty())?;
        let mut found = Vec::new();
        let mut buffer = vec![0_u8; 65536];
        loop {
            let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for (kind, sequence, body) in messages(&buffer[..length]) {
                match kind {
                    _ if sequence != self.sequence => {}
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => {
                        let code = number(body, 0).unwrap_or_default();
                        return Err(io::Error::from_raw_os_error(code.wrapping_neg().cast_signed()));
                    }
                    RTM_NEWADDR => found.extend(address_of(body)),
                    _ => {}
                }
            }
        }
    }
}

/// `struct rtmsg`, or `struct fib_rule_hdr`, which has the same shape; scope is everywhere.
fn header(prefix: u8, table: u8, protocol: u8, kind: u8) -> [u8; 12] {
    [AF_INET, prefix, 0, 0, table, protocol, 0, kind, 0, 0, 0, 0]
}

/// Takes a datagram apart: kind, sequence and body of each message in it.
fn messages(mut bytes: &[u8]) -> Vec<(u16, u32, &[u8])> {
    let mut found = Vec::new();
    while let Some(length) = number(bytes, 0).map(|length| length as usize) {
        let (Some(kind), Some(sequence)) = (short(bytes, 4), number(bytes, 8)) else { break };
        let Some(body) = bytes.get(16..length) else { break };
        found.push((kind, sequence, body));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The address in a `struct ifaddrmsg` with its attributes.
fn address_of(body: &[u8]) -> Option<IpAddr> {
    let mut rest = body.get(8..)?;
    let mut address = None;
    while let (Some(length), Some(kind)) = (short(rest, 0), short(rest, 2)) {
        let value = rest.get(4..usize::from(length))?;
        // On a point-to-point link IFA_ADDRESS is the other end's, so IFA_LOCAL wins.
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && address.is_none()) {
            address = match value.len() {
                4 => <[u8; 4]>::try_from(value).ok().map(|octets| Ipv4Addr::from(octets).into()),
                16 => <[u8; 16]>::try_from(value).ok().map(|octets| Ipv6Addr::from(octets).into()),
                _ => None,
            };
        }
        rest = rest.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    address
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_lists_our_own_addresses() {
        let found = Netlink::open().unwrap().addresses().unwrap();
        // A namespace whose loopback is down has none; on every other there is 127.0.0.1.
        assert!(found.is_empty() || found.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
    }

    #[test]
    fn attributes_are_padded_and_nests_know_their_length() {
        let mut message = Message::new(1, 0, 7);
        message.name("abcd").nest(9, |inner| {
            inner.attribute(1, &[1, 2, 3]);
        });
        let bytes = message.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(number(&bytes, 0), Some(u32::try_from(bytes.len()).unwrap()));
        assert_eq!(short(&bytes, 16), Some(9));
        assert_eq!((short(&bytes, 28), short(&bytes, 30)), (Some(12), Some(9 | NESTED)));
    }

    #[test]
    fn truncated_answers_are_not_read_past_their_end() {
        assert!(messages(&[0; 3]).is_empty());
        assert!(messages(&200_u32.to_ne_bytes()).is_empty());
        assert_eq!(address_of(&[0; 4]), None);
        let mut lying = vec![0_u8; 8];
        lying.extend(200_u16.to_ne_bytes());
        lying.extend(IFA_LOCAL.to_ne_bytes());
        assert_eq!(address_of(&lying), None);
    }
}
