//! The little of ZMTP 3.0 (NULL mechanism, over a unix socket) that a Jupyter client needs, without I/O: bytes in,
//! frames out. A peer of version 3.1 speaks 3.0 with us.
//!
//! The peer is a process of the user: it may send anything. Frames are handed on piece by piece, so that one of
//! any declared size costs no memory here.

/// Our greeting: signature, version 3.0, mechanism NULL, not a server.
pub(crate) const GREETING: [u8; 64] = {
    let mut out = [0; 64];
    out[0] = 0xFF;
    out[9] = 0x7F;
    out[10] = 3;
    out[12] = b'N';
    out[13] = b'U';
    out[14] = b'L';
    out[15] = b'L';
    out
};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What the peer sent that is no ZMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotZmtp;

/// Checks the peer's greeting.
pub(crate) fn check_greeting(greeting: &[u8; 64]) -> Result<(), NotZmtp> {
    let mechanism = &greeting[12..32];
    let null = mechanism.starts_with(b"NULL") && mechanism[4..].iter().all(|b| *b == 0);
    if greeting[0] == 0xFF && greeting[9] == 0x7F && greeting[10] >= 3 && null {
        Ok(())
    } else {
        Err(NotZmtp)
    }
}

/// The READY command of a socket of this type.
pub(crate) fn ready(socket_type: &str) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [("Socket-Type", socket_type), ("Identity", "")] {
        body.push(name.len() as u8);
        body.extend(name.as_bytes());
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    let mut out = vec![COMMAND, body.len() as u8];
    out.extend(body);
    out
}

/// The message by which a SUB socket asks for everything.
pub(crate) const SUBSCRIBE_ALL: [u8; 3] = [0, 1, 1];

/// Appends a message of these parts.
pub(crate) fn put_message(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for (i, part) in parts.iter().enumerate() {
        let more = if i + 1 < parts.len() { MORE } else { 0 };
        match u8::try_from(part.len()) {
            Ok(short) => out.extend([more, short]),
            Err(_) => {
                out.push(more | LONG);
                out.extend((part.len() as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(part);
    }
}

/// What the decoder finds, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A frame begins.
    Begin { command: bool },
    /// Some of its bytes.
    Data(&'a [u8]),
    /// It is complete; `last` when its message is, too.
    End { last: bool },
}

/// Takes a stream of frames apart.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    head: [u8; 9],
    have: usize,
    /// Bytes of the current frame still to come; `None` between frames.
    left: Option<u64>,
}

impl Decoder {
    /// Reads some bytes; calls `on` for each piece in them.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Piece<'_>)) -> Result<(), NotZmtp> {
        loop {
            if let Some(left) = self.left {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let (now, rest) = bytes.split_at(take);
                if !now.is_empty() {
                    on(Piece::Data(now));
                }
                bytes = rest;
                let left = left - take as u64;
                if left > 0 {
                    self.left = Some(left);
                    return Ok(());
                }
                self.left = None;
                self.have = 0;
                on(Piece::End { last: self.head[0] & MORE == 0 });
            }
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            self.head[self.have] = *first;
            self.have += 1;
            bytes = rest;
            let flags = self.head[0];
            if flags & !(MORE | LONG | COMMAND) != 0 {
                return Err(NotZmtp);
            }
            let wanted = if flags & LONG == 0 { 2 } else { 9 };
            if self.have == wanted {
                let length = if wanted == 2 {
                    u64::from(self.head[1])
                } else {
                    let mut long = [0; 8];
                    long.copy_from_slice(&self.head[1..]);
                    u64::from_be_bytes(long)
                };
                if length > i64::MAX as u64 {
                    return Err(NotZmtp);
                }
                self.left = Some(length);
                on(Piece::Begin { command: flags & COMMAND != 0 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frames as (is command, is last, bytes), however the stream was cut.
    fn decode(stream: &[u8], step: usize) -> Result<Vec<(bool, bool, Vec<u8>)>, NotZmtp> {
        let mut decoder = Decoder::default();
        let (mut done, mut now, mut is_command) = (Vec::new(), Vec::new(), false);
        for chunk in stream.chunks(step) {
            decoder.feed(chunk, |piece| match piece {
                Piece::Begin { command } => is_command = command,
                Piece::Data(data) => now.extend_from_slice(data),
                Piece::End { last } => done.push((is_command, last, std::mem::take(&mut now))),
            })?;
        }
        Ok(done)
    }

    proptest! {
        #[test]
        fn messages_survive_however_the_stream_is_cut(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..5),
            step in 1usize..700,
        ) {
            let mut stream = Vec::new();
            put_message(&mut stream, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let decoded = decode(&stream, step).unwrap();
            prop_assert_eq!(decoded.iter().map(|f| f.2.clone()).collect::<Vec<_>>(), parts);
            let last: Vec<bool> = decoded.iter().map(|f| f.1).collect();
            prop_assert!(last[..last.len() - 1].iter().all(|l| !l) && last[last.len() - 1]);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_harm(bytes: Vec<u8>, step in 1usize..9) {
            let _ = decode(&bytes, step);
        }
    }

    #[test]
    fn a_frame_of_absurd_size_is_refused_and_a_large_one_costs_nothing() {
        let head = |length: u64| [&[LONG][..], &length.to_be_bytes()].concat();
        assert_eq!(decode(&head(u64::MAX), 4), Err(NotZmtp));
        assert_eq!(decode(&head(1 << 50), 4), Ok(vec![]));
    }

    #[test]
    fn greetings_are_checked() {
        assert_eq!(check_greeting(&GREETING), Ok(()));
        let mut newer = GREETING;
        newer[11] = 1;
        assert_eq!(check_greeting(&newer), Ok(()));
        let mut curve = GREETING;
        curve[12..17].copy_from_slice(b"CURVE");
        assert_eq!(check_greeting(&curve), Err(NotZmtp));
        assert_eq!(check_greeting(&[0; 64]), Err(NotZmtp));
    }
}
