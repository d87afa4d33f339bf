//! What agent and spawner say to each other: one message a datagram on a SEQPACKET socket pair.
//!
//! ```text
//! agent → spawner   Spawn{id, argv, env, cwd, terminal} with three descriptors · Signal{pid, signal, reach} ·
//!                   Release{pid}
//! spawner → agent   Spawned{id, pid} · Failed{id, errno} · Exited{pid, end} · Ending
//! ```
//!
//! Numbers are little endian; a string is its 32-bit length and its bytes. The spawner holds privilege and the
//! agent parses what user code can influence, so decoding trusts no length and accepts no rest.

/// The largest message: what a socket buffer of the kernel's default size carries at once.
pub(crate) const MAX_MESSAGE: usize = 192 << 10;
/// Descriptors that come with a spawn: stdin, stdout, stderr.
pub(crate) const SPAWN_FDS: usize = 3;
/// Most strings in an argv or an environment.
const MAX_STRINGS: u32 = 2048;

/// Agent to spawner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Start a program as the user. `env` holds `NAME=value` strings; `cwd` is an absolute path.
    /// `terminal`: stdin is a terminal, which becomes the program's controlling one.
    Spawn { id: u32, argv: Vec<Vec<u8>>, env: Vec<Vec<u8>>, cwd: Vec<u8>, terminal: bool },
    /// Signal what a spawn became.
    Signal { pid: u32, signal: u8, reach: Reach },
    /// The agent has no more interest in this spawn.
    Release { pid: u32 },
}

/// How far a signal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The process group of the spawned process.
    Group,
    /// Also its session and every process that descends from it, wherever it hid, as far as can be told.
    Everything,
}

/// Spawner to agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The spawn with this id runs as this process.
    Spawned { id: u32, pid: u32 },
    /// It could not be started.
    Failed { id: u32, errno: i32 },
    /// A spawned process has ended.
    Exited { pid: u32, end: End },
    /// The container was told to end: answer what is under way, and go.
    Ending,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// A message that does not follow the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Request {
    /// The datagram; `None` when it would be larger than [`MAX_MESSAGE`].
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(256);
        match self {
            Self::Spawn { id, argv, env, cwd, terminal } => {
                out.push(1);
                out.extend(id.to_le_bytes());
                for list in [argv, env] {
                    out.extend(u32::try_from(list.len()).ok()?.to_le_bytes());
                    for item in list {
                        put_string(&mut out, item)?;
                    }
                }
                put_string(&mut out, cwd)?;
                out.push(u8::from(*terminal));
            }
            Self::Signal { pid, signal, reach } => {
                out.push(2);
                out.extend(pid.to_le_bytes());
                out.push(*signal);
                out.push(match reach {
                    Reach::Group => 0,
                    Reach::Everything => 1,
                });
            }
            Self::Release { pid } => {
                out.push(3);
                out.extend(pid.to_le_bytes());
            }
        }
        (out.len() <= MAX_MESSAGE).then_some(out)
    }

    /// Reads a datagram.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let request = match from.byte()? {
            1 => {
                let id = from.number()?;
                let (argv, env) = (from.strings()?, from.strings()?);
                let (cwd, terminal) = (from.string()?, from.flag()?);
                Self::Spawn { id, argv, env, cwd, terminal }
            }
            2 => Self::Signal {
                pid: from.number()?,
                signal: from.byte()?,
                reach: match from.byte()? {
                    0 => Reach::Group,
                    1 => Reach::Everything,
                    _ => return Err(Malformed),
                },
            },
            3 => Self::Release { pid: from.number()? },
            _ => return Err(Malformed),
        };
        from.end()?;
        Ok(request)
    }
}

impl Event {
    /// The datagram.
    pub(crate) fn encode(self) -> [u8; 9] {
        let (tag, first, second) = match self {
            Self::Spawned { id, pid } => (1, id, pid),
            Self::Failed { id, errno } => (2, id, errno.cast_unsigned()),
            Self::Exited { pid, end: End::Code(code) } => (3, pid, code.cast_unsigned()),
            Self::Exited { pid, end: End::Signal(signal) } => (4, pid, signal.cast_unsigned()),
            Self::Ending => (5, 0, 0),
        };
        let mut out = [0; 9];
        out[0] = tag;
        out[1..5].copy_from_slice(&first.to_le_bytes());
        out[5..].copy_from_slice(&second.to_le_bytes());
        out
    }

    /// Reads a datagram.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let (tag, first, second) = (from.byte()?, from.number()?, from.number()?);
        from.end()?;
        Ok(match tag {
            1 => Self::Spawned { id: first, pid: second },
            2 => Self::Failed { id: first, errno: second.cast_signed() },
            3 => Self::Exited { pid: first, end: End::Code(second.cast_signed()) },
            4 => Self::Exited { pid: first, end: End::Signal(second.cast_signed()) },
            5 if first == 0 && second == 0 => Self::Ending,
            _ => return Err(Malformed),
        })
    }
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend(u32::try_from(bytes.len()).ok()?.to_le_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

/// Takes a message apart from its front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| Malformed)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = self.number()? as usize;
        Ok(self.take(length)?.to_vec())
    }

    fn strings(&mut self) -> Result<Vec<Vec<u8>>, Malformed> {
        let count = self.number()?;
        if count > MAX_STRINGS {
            return Err(Malformed);
        }
        (0..count).map(|_| self.string()).collect()
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strings() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(id: u32, argv in strings(), env in strings(), cwd: Vec<u8>, terminal: bool) {
            for request in [
                Request::Spawn { id, argv: argv.clone(), env: env.clone(), cwd: cwd.clone(), terminal },
                Request::Signal { pid: id, signal: 9, reach: Reach::Everything },
                Request::Release { pid: id },
            ] {
                prop_assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
            }
        }

        #[test]
        fn events_survive_the_wire(a: u32, b: i32) {
            for event in [
                Event::Spawned { id: a, pid: 7 },
                Event::Failed { id: a, errno: b },
                Event::Exited { pid: a, end: End::Code(b) },
                Event::Exited { pid: a, end: End::Signal(b) },
                Event::Ending,
            ] {
                prop_assert_eq!(Event::decode(&event.encode()), Ok(event));
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused_without_harm(bytes: Vec<u8>) {
            let _ = Request::decode(&bytes);
            let _ = Event::decode(&bytes);
        }

        #[test]
        fn a_message_cut_short_or_followed_by_more_is_refused(argv in strings(), cut in 0usize..100) {
            let whole = Request::Spawn { id: 1, argv, env: vec![], cwd: b"/".to_vec(), terminal: true }.encode().unwrap();
            let cut = cut % whole.len();
            prop_assert_eq!(Request::decode(&whole[..cut]), Err(Malformed));
            let mut longer = whole;
            longer.push(0);
            prop_assert_eq!(Request::decode(&longer), Err(Malformed));
        }
    }

    #[test]
    fn what_does_not_fit_is_not_sent() {
        let request = Request::Spawn {
            id: 1,
            argv: vec![vec![b'x'; MAX_MESSAGE]],
            env: vec![],
            cwd: vec![],
            terminal: false,
        };
        assert_eq!(request.encode(), None);
    }
}
