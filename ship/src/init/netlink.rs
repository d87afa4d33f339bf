//! As much of rtnetlink as the network rules need: rules, unreachable routes, a link's flags. No dump is ever
//! read, only acknowledgements.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// An address and how many of its leading bits count; the others are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) address: IpAddr,
    pub(super) length: u8,
}

impl Prefix {
    /// Reads `10.0.0.0/8`, `fd00::/8`, or a lone address.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address.parse::<IpAddr>().ok()?, Some(length.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(most);
        if length > most {
            return None;
        }
        // The kernel refuses routes with bits beyond the prefix.
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        };
        Some(Self { address, length })
    }

    fn family(self) -> u8 {
        (if self.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
    }

    fn bytes(self) -> Vec<u8> {
        octets(self.address)
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Which packets a rule is about.
pub(super) enum Which<'a> {
    All,
    /// Those to this destination.
    To(Prefix),
    /// Those of a socket (or a single message) tied to this interface.
    TiedTo(&'a str),
}

/// A request under construction.
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        Self { kind, flags, body: fixed.to_vec() }
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
        self
    }

    /// A rule: packets of `uids` (those that `which` tells) look into `table`.
    pub(super) fn rule(family: u8, priority: u32, uids: (u32, u32), which: &Which<'_>, table: u32) -> Self {
        const FRA_DST: u16 = 1;
        const FRA_PRIORITY: u16 = 6;
        const FRA_TABLE: u16 = 15;
        const FRA_OIFNAME: u16 = 17;
        const FRA_UID_RANGE: u16 = 20;
        const TO_TABLE: u8 = 1;
        let dst_len = if let Which::To(prefix) = which { prefix.length } else { 0 };
        let fixed = [family, dst_len, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0];
        let mut message = Self::new(libc::RTM_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed)
            .attribute(FRA_PRIORITY, &priority.to_ne_bytes())
            .attribute(FRA_TABLE, &table.to_ne_bytes());
        match which {
            Which::All => {}
            Which::To(prefix) => message = message.attribute(FRA_DST, &prefix.bytes()),
            Which::TiedTo(name) => {
                message = message.attribute(FRA_OIFNAME, &[name.as_bytes(), &[0]].concat())
            }
        }
        let range = [uids.0.to_ne_bytes(), uids.1.to_ne_bytes()].concat();
        message.attribute(FRA_UID_RANGE, &range)
    }

    /// A route of `table` that answers "unreachable".
    pub(super) fn unreachable(to: Prefix, table: u32) -> Self {
        const RTA_DST: u16 = 1;
        const RTA_TABLE: u16 = 15;
        const PROTOCOL_STATIC: u8 = 4;
        let fixed = [to.family(), to.length, 0, 0, 0, PROTOCOL_STATIC, 0, libc::RTN_UNREACHABLE, 0, 0, 0, 0];
        Self::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed)
            .attribute(RTA_DST, &to.bytes())
            .attribute(RTA_TABLE, &table.to_ne_bytes())
    }

    /// A route of `table` by way of a neighbour on an interface.
    pub(super) fn via(to: Prefix, gateway: IpAddr, interface: u32, table: u32) -> Self {
        const RTA_DST: u16 = 1;
        const RTA_OIF: u16 = 4;
        const RTA_GATEWAY: u16 = 5;
        const RTA_TABLE: u16 = 15;
        const PROTOCOL_STATIC: u8 = 4;
        const UNICAST: u8 = 1;
        const ONLINK: u32 = 4;
        let mut fixed = vec![to.family(), to.length, 0, 0, 0, PROTOCOL_STATIC, 0, UNICAST];
        fixed.extend(ONLINK.to_ne_bytes());
        Self::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed)
            .attribute(RTA_DST, &to.bytes())
            .attribute(RTA_GATEWAY, &octets(gateway))
            .attribute(RTA_OIF, &interface.to_ne_bytes())
            .attribute(RTA_TABLE, &table.to_ne_bytes())
    }

    /// A neighbour with this hardware address, for good.
    pub(super) fn neighbour(address: IpAddr, hardware: [u8; 6], interface: u32) -> Self {
        const NDA_DST: u16 = 1;
        const NDA_LLADDR: u16 = 2;
        const PERMANENT: u16 = 0x80;
        let family = (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8;
        let mut fixed = vec![family, 0, 0, 0];
        fixed.extend(interface.to_ne_bytes());
        fixed.extend(PERMANENT.to_ne_bytes());
        fixed.extend([0, 0]);
        Self::new(libc::RTM_NEWNEIGH, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &fixed)
            .attribute(NDA_DST, &octets(address))
            .attribute(NDA_LLADDR, &hardware)
    }

    /// Brings up the interface with this index.
    pub(super) fn link_up(index: i32) -> Self {
        let up = (libc::IFF_UP as u32).to_ne_bytes();
        let mut fixed = vec![0u8; 4];
        fixed.extend(index.to_ne_bytes());
        fixed.extend(up);
        fixed.extend(up);
        Self::new(libc::RTM_NEWLINK, 0, &fixed)
    }

    fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.body.len());
        out.extend((16 + self.body.len() as u32).to_ne_bytes());
        out.extend(self.kind.to_ne_bytes());
        out.extend(self.flags.to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend(0u32.to_ne_bytes());
        out.extend(&self.body);
        out
    }
}

/// A conversation with the kernel's router.
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks, and waits for the kernel's acknowledgement, which it gives before `send` returns.
    pub(super) fn ask(&mut self, message: &Message) -> io::Result<()> {
        self.sequence += 1;
        send(&self.socket, &message.encode(self.sequence), SendFlags::empty())?;
        let mut answer = [0u8; 4096];
        loop {
            let (_, length) = recv(&self.socket, &mut answer, RecvFlags::DONTWAIT | RecvFlags::TRUNC)?;
            match acknowledgement(&answer[..length.min(answer.len())], self.sequence) {
                Some(0) => return Ok(()),
                Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                None => {}
            }
        }
    }
}

/// The code in an answer to `sequence`: 0, or a negative errno. `None` for anything else.
fn acknowledgement(answer: &[u8], sequence: u32) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let number = u32::from_ne_bytes(answer.get(8..12)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (i32::from(kind) == libc::NLMSG_ERROR && number == sequence).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_lose_the_bits_that_do_not_count() {
        let prefix = Prefix::parse("10.1.2.3/8").unwrap();
        assert_eq!((prefix.address, prefix.length), ("10.0.0.0".parse().unwrap(), 8));
        assert_eq!(Prefix::parse("192.168.1.7").unwrap().length, 32);
        assert_eq!(Prefix::parse("0.0.0.0/0").unwrap().address, "0.0.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(Prefix::parse("fe80::1/10").unwrap().address, "fe80::".parse::<IpAddr>().unwrap());
        assert_eq!(Prefix::parse("::/0").unwrap().length, 0);
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fe80::/129", "10.0.0.0/-1", "10.0.0.0/8/8", "example"] {
            assert_eq!(Prefix::parse(text), None, "{text}");
        }
    }

    #[test]
    fn messages_have_their_length_and_aligned_attributes() {
        let message = Message::rule(2, 100, (1000, 1000), &Which::TiedTo("eth0"), 254).encode(1);
        assert_eq!(u32::from_ne_bytes(message[..4].try_into().unwrap()) as usize, message.len());
        assert_eq!(message.len() % 4, 0);
    }
}
