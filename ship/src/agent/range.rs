//! The `Range` header: one range of bytes, as HTTP reads it.

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Range {
    /// No range that is understood here: the whole file, as HTTP allows.
    Whole,
    Part(u64, u64),
    Outside,
}

impl Range {
    pub(super) fn parse(text: &str, size: u64) -> Self {
        let Some((first, last)) = text.strip_prefix("bytes=").and_then(|spec| spec.split_once('-')) else {
            return Self::Whole;
        };
        let number = |text: &str| text.trim().parse::<u64>().ok();
        match (first.trim(), last.trim()) {
            ("", last) => match number(last) {
                None => Self::Whole,
                Some(0) => Self::Outside,
                Some(_) if size == 0 => Self::Outside,
                Some(count) => Self::Part(size.saturating_sub(count), count.min(size)),
            },
            (first, last) => match (number(first), number(last)) {
                (None, _) => Self::Whole,
                (_, None) if !last.is_empty() => Self::Whole,
                (Some(first), Some(last)) if last < first => Self::Whole,
                (Some(first), _) if first >= size => Self::Outside,
                (Some(first), last) => {
                    let last = last.unwrap_or(u64::MAX).min(size - 1);
                    Self::Part(first, last - first + 1)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_follow_http() {
        assert_eq!(Range::parse("bytes=0-3", 10), Range::Part(0, 4));
        assert_eq!(Range::parse("bytes=4-", 10), Range::Part(4, 6));
        assert_eq!(Range::parse("bytes=-3", 10), Range::Part(7, 3));
        assert_eq!(Range::parse("bytes=-30", 10), Range::Part(0, 10));
        assert_eq!(Range::parse("bytes=8-99", 10), Range::Part(8, 2));
        assert_eq!(Range::parse("bytes=10-", 10), Range::Outside);
        assert_eq!(Range::parse("bytes=-0", 10), Range::Outside);
        assert_eq!(Range::parse("bytes=0-", 0), Range::Outside);
        for other in ["bytes=3-1", "bytes=a-b", "bytes=1-2,4-5", "lines=1-2", "bytes=", ""] {
            assert_eq!(Range::parse(other, 10), Range::Whole, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_part_always_lies_within_the_file(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", size: u64) {
            if let Range::Part(offset, length) = Range::parse(&text, size) {
                prop_assert!(length > 0 && offset.checked_add(length).is_some_and(|end| end <= size));
            }
        }
    }
}
