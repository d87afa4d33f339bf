//! The format against itself, against the machine's own `tar`, and against rubbish.

use std::io::Cursor;
use std::process::Command;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn file(name: &[u8], size: u64) -> Member {
    Member {
        name: name.to_vec(),
        kind: Kind::File,
        target: Vec::new(),
        mode: 0o644,
        mtime: (1_700_000_000, 0),
        size,
    }
}

fn packed(members: &[(Member, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (member, data) in members {
        write_header(&mut out, member);
        out.extend_from_slice(data);
        out.resize(out.len() + padding(data.len() as u64), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn all(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Reason> {
    let mut reader = Reader::new(Cursor::new(bytes));
    let mut members = Vec::new();
    let reason = |stop| match stop {
        Stop::Refused(reason) => reason,
        Stop::Io(error) => panic!("{error}"),
    };
    while let Some(member) = reader.next().map_err(reason)? {
        let mut data = Vec::new();
        let mut buffer = [0; 100];
        loop {
            match reader.data(&mut buffer).map_err(reason)? {
                0 => break,
                count => data.extend_from_slice(&buffer[..count]),
            }
        }
        members.push((member, data));
    }
    Ok(members)
}

#[test]
fn numbers_are_octal_or_binary() {
    assert_eq!(number(b"0000644\0"), Some(0o644));
    assert_eq!(number(b"   644 \0"), Some(0o644));
    assert_eq!(number(b"\0\0\0\0"), Some(0));
    assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(2 << 32));
    for bad in [&b"0000648\0"[..], b"-1\0", b"\xFF\xFF\xFF\xFF", b"\x80\xFF\0\0\0\0\0\0\0\0\0\0"] {
        assert_eq!(number(bad), None, "{bad:?}");
    }
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    let dir = TempDir::new().unwrap();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    std::fs::create_dir(dir.path().join("d".repeat(90))).unwrap();
    std::fs::write(dir.path().join(&long), "long").unwrap();
    std::fs::write(dir.path().join("short"), "x".repeat(1000)).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), dir.path().join("link")).unwrap();
    for format in ["gnu", "pax", "oldgnu"] {
        let packed = Command::new("tar")
            .args([&format!("--format={format}"), "-cf", "-", "."])
            .current_dir(&dir)
            .output()
            .unwrap();
        let members = all(&packed.stdout).unwrap();
        let find =
            |name: &str| members.iter().find(|(m, _)| m.name == format!("./{name}").as_bytes()).unwrap();
        assert_eq!(find(&long).1, b"long", "{format}");
        assert_eq!(find("short").1.len(), 1000, "{format}");
        assert_eq!((find("link").0.kind, find("link").0.target.len()), (Kind::Symlink, 150), "{format}");
        assert_eq!(find("").0.kind, Kind::Directory, "{format}");
    }
}

#[test]
fn gnu_tar_reads_what_is_written() {
    let dir = TempDir::new().unwrap();
    let long = [&b"long/"[..], &[b'x'; 200]].concat();
    let mut link = file(b"link", 0);
    link.kind = Kind::Symlink;
    link.target = vec![b't'; 180];
    let bytes =
        packed(&[(file(&long, 3), b"abc".to_vec()), (link, Vec::new()), (file(b"last", 0), Vec::new())]);
    std::fs::write(dir.path().join("a.tar"), bytes).unwrap();
    let out = Command::new("tar").args(["-xvf", "a.tar"]).current_dir(&dir).output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    let read = std::fs::read(dir.path().join(std::str::from_utf8(&long).unwrap())).unwrap();
    assert_eq!(read, b"abc");
    assert_eq!(std::fs::read_link(dir.path().join("link")).unwrap().as_os_str().len(), 180);
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let bytes = packed(&[(file(b"a", 700), vec![1; 700]), (file(&[b'n'; 300], 10), vec![2; 10])]);
    assert_eq!(all(&bytes).unwrap().len(), 2);
    // The second empty block at the end says nothing that the first did not.
    for cut in (0..bytes.len() - BLOCK).step_by(64) {
        assert_eq!(all(&bytes[..cut]), Err(Reason::Truncated), "{cut}");
    }
}

#[test]
fn nothing_may_follow_the_end() {
    let mut bytes = packed(&[]);
    bytes.extend([0; 9000]);
    assert_eq!(all(&bytes), Ok(Vec::new()));
    bytes.push(1);
    assert_eq!(all(&bytes), Err(Reason::AfterTheEnd));
    let bomb = vec![0; MAX_PADDING + 2 * BLOCK];
    assert_eq!(all(&bomb), Err(Reason::AfterTheEnd));
}

#[test]
fn pax_headers_are_bounded_and_say_no_nonsense() {
    let pax = |flag: u8, records: &[u8], size: u64| {
        let mut out = Vec::new();
        block(&mut out, b"pax", flag, b"", (0o644, 0, size));
        out.extend_from_slice(records);
        out.resize(out.len() + padding(records.len() as u64), 0);
        out.extend(packed(&[(file(b"plain", 0), Vec::new())]));
        all(&out)
    };
    let good = b"11 path=ab\n21 mtime=1234567890.5\n";
    let good = [&good[..11], b"22 mtime=1234567890.5\n"].concat();
    let read = pax(b'x', &good, good.len() as u64).unwrap();
    assert_eq!((read[0].0.name.as_slice(), read[0].0.mtime), (&b"ab"[..], (1_234_567_890, 500_000_000)));
    assert_eq!(pax(b'x', b"", MAX_PAX + 1), Err(Reason::LongName));
    for bad in [&b"11 path=ab"[..], b"5 a\n", b"99 path=ab\n", b"0 \n", b"path=ab\n", b"8 size=x\n", b"4 =\n"]
    {
        let refused = pax(b'x', bad, bad.len() as u64);
        assert!(bad == b"4 =\n" || refused == Err(Reason::Corrupt), "{bad:?}: {refused:?}");
    }
    let sparse = b"22 GNU.sparse.major=1\n";
    assert_eq!(pax(b'x', sparse, 22).unwrap()[0].0.kind, Kind::Sparse);
    assert_eq!(pax(b'g', b"11 path=ab\n", 11), Err(Reason::Unsupported));
    assert_eq!(pax(b'g', b"14 comment=ab\n", 14).unwrap().len(), 1);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        entries in prop::collection::vec(
            (prop::collection::vec(1_u8.., 1..300), prop::collection::vec(any::<u8>(), 0..1500), 0_u32..0o1000),
            0..5,
        )
    ) {
        let members: Vec<_> = entries
            .into_iter()
            .map(|(mut name, data, mode)| {
                if name.ends_with(b"/") { name.push(b'x'); }
                (Member { mode, ..file(&name, data.len() as u64) }, data)
            })
            .collect();
        prop_assert_eq!(all(&packed(&members)), Ok(members));
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..3000), fix: bool) {
        if fix && bytes.len() >= BLOCK {
            // A right checksum, so that what is behind it is tried, too.
            let mut first: [u8; BLOCK] = bytes[..BLOCK].try_into().unwrap();
            let sum = checksum(&first);
            put_number(&mut first[148..156], sum);
            bytes[..BLOCK].copy_from_slice(&first);
        }
        let _ = all(&bytes);
    }
}
