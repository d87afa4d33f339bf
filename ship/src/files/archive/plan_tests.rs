//! No accepted plan ever leaves the root.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn member(name: &str, kind: Kind, target: &str) -> Member {
    Member { name: name.into(), kind, target: target.into(), mode: 0o7777, mtime: (0, 0), size: 0 }
}

fn run(members: &[Member]) -> Result<Tree, Reason> {
    let mut tree = Tree::new(BOUNDS);
    for member in members {
        tree.admit(&judge(member, &BOUNDS)?)?;
    }
    Ok(tree)
}

fn refused(members: &[Member]) -> Reason {
    run(members).err().unwrap()
}

#[test]
fn hostile_entries_are_refused_each_for_its_reason() {
    use Kind::{Directory, File, Hardlink, Special, Symlink};
    for (entry, reason) in [
        (member("", File, ""), Reason::EmptyName),
        (member(".", File, ""), Reason::EmptyName),
        (member("/etc/passwd", File, ""), Reason::AbsoluteName),
        (member("../x", File, ""), Reason::ClimbingName),
        (member("a/../b", File, ""), Reason::ClimbingName),
        (member("a/..", Directory, ""), Reason::ClimbingName),
        (member("a\0b", File, ""), Reason::NullByte),
        (member("dev", Special, ""), Reason::Special),
        (member("l", Symlink, "/etc"), Reason::AbsoluteLink),
        (member("l", Symlink, ".."), Reason::EscapingLink),
        (member("a/l", Symlink, "../../x"), Reason::EscapingLink),
        (member("a/b/l", Symlink, "c/../../x"), Reason::EscapingLink),
        (member("l", Symlink, ""), Reason::EmptyLink),
        (member("h", Hardlink, "none"), Reason::UnknownLinkTarget),
        (member("h", Hardlink, "/etc/passwd"), Reason::EscapingLink),
        (member("h", Hardlink, "../x"), Reason::EscapingLink),
        (member(&"n".repeat(256), File, ""), Reason::LongName),
        (member(&"n/".repeat(600), Directory, ""), Reason::LongName),
        (member(&"n/".repeat(65), Directory, ""), Reason::TooDeep),
        (Member { size: 1, ..member("d", Directory, "") }, Reason::UnexpectedData),
        (Member { size: u64::MAX, ..member("f", File, "") }, Reason::TooManyBytes),
    ] {
        assert_eq!(refused(std::slice::from_ref(&entry)), reason, "{entry:?}");
    }
    let file = member("a", File, "");
    for (second, reason) in [
        (member("a", File, ""), Reason::Duplicate),
        (member("./a/", Directory, ""), Reason::Duplicate),
        (member("a/b", File, ""), Reason::BeneathAFile),
    ] {
        assert_eq!(refused(&[file.clone(), second]), reason);
    }
    let link = member("l", Symlink, "a");
    assert_eq!(refused(&[link.clone(), member("l/b", File, "")]), Reason::BeneathALink);
    assert_eq!(refused(&[link, member("h", Hardlink, "l")]), Reason::UnknownLinkTarget);
    assert_eq!(refused(&[member("d", Directory, ""), member("h", Hardlink, "d")]), Reason::UnknownLinkTarget);
}

#[test]
fn modes_are_tamed_and_directories_may_come_late() {
    let plan = judge(&member("f", Kind::File, ""), &BOUNDS).unwrap();
    assert_eq!(plan.mode, 0o777);
    let plan = judge(&Member { mode: 0, ..member("d", Kind::Directory, "") }, &BOUNDS).unwrap();
    assert_eq!(plan.mode, 0o700);
    let tree = run(&[
        member("d/e/f", Kind::File, ""),
        member("d", Kind::Directory, ""),
        member("./", Kind::Directory, ""),
        member("d/e/l", Kind::Symlink, "../../x"),
        member("d/h", Kind::Hardlink, "d/e/f"),
    ])
    .unwrap_or_else(|reason| panic!("{reason:?}"));
    assert_eq!(tree.entries, 5);
    let names: Vec<_> = tree.children(0).map(|(name, _)| name.to_vec()).collect();
    assert_eq!(names, [b"d".to_vec()]);
}

#[test]
fn the_bounds_on_all_entries_together_hold() {
    let bounds = Bounds { entries: 3, bytes: 10, ..BOUNDS };
    let mut tree = Tree::new(bounds);
    let mut add = |name: &str, size| {
        let member = Member { size, ..member(name, Kind::File, "") };
        judge(&member, &bounds).and_then(|plan| tree.admit(&plan))
    };
    assert_eq!(add("a/b/c", 6), Ok(()));
    assert_eq!(add("d", 1), Err(Reason::TooManyEntries));
    assert_eq!(add("a/b/e", 6), Err(Reason::TooManyBytes));
}

/// A file system of names only, in which links are really followed.
#[derive(Default)]
struct Model(BTreeMap<Vec<Vec<u8>>, Option<Vec<u8>>>);

impl Model {
    /// Where a link leads; none when it leaves the root.
    fn follow(&self, mut at: Vec<Vec<u8>>, target: &[u8], links: &mut u32) -> Option<Vec<Vec<u8>>> {
        for part in target.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => {
                    at.pop()?;
                    continue;
                }
                name => at.push(name.to_vec()),
            }
            if let Some(Some(inner)) = self.0.get(&at) {
                *links += 1;
                if *links > 40 {
                    return Some(Vec::new());
                }
                at.pop();
                at = self.follow(at, inner, links)?;
            }
        }
        Some(at)
    }
}

fn any_member() -> impl Strategy<Value = Member> {
    let part = prop_oneof![4 => "[ab]", 1 => Just("..".to_owned()), 1 => Just(".".to_owned()), 1 => Just(String::new())];
    let path = prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"));
    let kind = prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        Just(Kind::Symlink),
        Just(Kind::Hardlink),
        Just(Kind::Special),
    ];
    (path.clone(), kind, path).prop_map(|(name, kind, target)| member(&name, kind, &target))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_accepted_plan_leaves_the_root(members in prop::collection::vec(any_member(), 1..12)) {
        let (mut tree, mut model) = (Tree::new(BOUNDS), Model::default());
        for member in &members {
            let Ok(plan) = judge(member, &BOUNDS) else { continue };
            prop_assert!(plan.path.iter().all(|step| !step.is_empty() && !matches!(&**step, b"." | b"..")));
            if tree.admit(&plan).is_err() { continue }
            let path: Vec<Vec<u8>> = plan.path.iter().map(|step| step.to_vec()).collect();
            for depth in 1..path.len() {
                prop_assert!(!matches!(model.0.get(&path[..depth]), Some(Some(_))), "beneath a link");
            }
            model.0.insert(path, match plan.what { What::Symlink { target } => Some(target), _ => None });
        }
        for (path, target) in model.0.iter().filter_map(|(path, target)| Some((path, target.as_ref()?))) {
            let above = path[..path.len() - 1].to_vec();
            prop_assert!(model.follow(above, target, &mut 0).is_some(), "{path:?} -> {target:?} in {members:?}");
        }
    }

    #[test]
    fn any_name_is_judged(name: Vec<u8>, target: Vec<u8>, size: u64, mode: u32) {
        for kind in [Kind::File, Kind::Directory, Kind::Symlink, Kind::Hardlink] {
            let member =
                Member { name: name.clone(), kind, target: target.clone(), mode, mtime: (0, 0), size };
            if let Ok(plan) = judge(&member, &BOUNDS) {
                prop_assert!(plan.mode & !0o777 == 0 && plan.path.len() <= BOUNDS.depth);
            }
        }
    }
}
