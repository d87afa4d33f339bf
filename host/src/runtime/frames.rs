//! Where one WebSocket frame ends and the next begins (RFC 6455, section 5.2). Without I/O, and without keeping any: a
//! frame of its own may only be put between two.

/// The opcode of a close frame.
const CLOSE: u8 = 0x8;
/// The longest reason that fits into a control frame with its code.
const MAX_REASON: usize = 123;

/// How far into a frame a stream of bytes has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Frames {
    /// Bytes of the present frame's head so far.
    head: [u8; 10],
    have: usize,
    /// Bytes of its payload (and mask) still to come.
    left: u64,
}

impl Frames {
    /// Whether nothing of a frame is outstanding.
    pub(super) fn between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Takes note of bytes.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.head.get_mut(self.have) {
                *place = first;
            }
            self.have += 1;
            bytes = rest;
            if let Some(length) = payload(self.head.get(..self.have).unwrap_or_default()) {
                self.have = 0;
                self.left = length;
            }
        }
    }

    /// How many of the next bytes belong to the frame under way.
    pub(super) fn rest(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut at = 0;
        while !ahead.between() && at < bytes.len() {
            let step = usize::try_from(ahead.left).unwrap_or(usize::MAX).clamp(1, bytes.len() - at);
            ahead.pass(bytes.get(at..at + step).unwrap_or_default());
            at += step;
        }
        at
    }

    /// How many of the next bytes come before a close frame; all of them where there is none.
    pub(super) fn before_close(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut at = 0;
        while let Some(next) = bytes.get(at) {
            if ahead.between() && next & 0xF == CLOSE {
                return at;
            }
            let step = usize::try_from(ahead.left).unwrap_or(usize::MAX).clamp(1, bytes.len() - at);
            ahead.pass(bytes.get(at..at + step).unwrap_or_default());
            at += step;
        }
        bytes.len()
    }
}

/// What follows a head: the payload, and before it the mask, if there is one. `None` until the head is whole.
fn payload(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let length = match second & 0x7F {
        126 => u16::from_be_bytes(head.get(2..4)?.try_into().ok()?).into(),
        127 => u64::from_be_bytes(head.get(2..10)?.try_into().ok()?),
        short => u64::from(short),
    };
    Some(length.saturating_add(mask))
}

/// A close frame as a server sends it.
pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    let reason = reason.get(..reason.floor_char_boundary(MAX_REASON)).unwrap_or_default();
    let length = u8::try_from(reason.len() + 2).unwrap_or(2);
    let mut frame = vec![0x80 | CLOSE, length];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(u8::try_from(length).unwrap()),
            126..=0xFFFF => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        // Payload that looks like close frames.
        frame.extend(std::iter::repeat_n(0x88, length));
        frame
    }

    proptest! {
        #[test]
        fn a_close_is_found_wherever_the_bytes_are_cut(
            lengths in prop::collection::vec(prop_oneof![0usize..200, 65_530usize..65_600], 0..5),
            cut in 1usize..5000,
        ) {
            let mut stream: Vec<u8> = lengths.iter().flat_map(|l| frame(0x82, *l)).collect();
            let end = stream.len();
            stream.extend(close(4409, "over"));
            let (mut frames, mut at) = (Frames::default(), 0);
            for piece in stream.chunks(cut) {
                let before = frames.before_close(piece);
                frames.pass(&piece[..before]);
                at += before;
                if before < piece.len() {
                    break;
                }
            }
            prop_assert_eq!(at, end);
            prop_assert!(frames.between());
        }

        #[test]
        fn any_bytes_are_walked_without_harm(bytes: Vec<u8>, cut in 1usize..50) {
            let mut frames = Frames::default();
            for piece in bytes.chunks(cut) {
                prop_assert!(frames.before_close(piece) <= piece.len());
                frames.pass(piece);
            }
        }
    }

    #[test]
    fn a_close_frame_is_as_the_rfc_has_it() {
        assert_eq!(close(4408, "ab"), [0x88, 4, 0x11, 0x38, b'a', b'b']);
        assert_eq!(close(1011, &"é".repeat(100)).len(), 2 + 2 + 122);
    }
}
