//! Against directories that look like the kernel's.

use super::*;

fn bounds() -> Bounds {
    Bounds { memory: 1 << 30, pids: 256, cpus: 1.5 }
}

fn mountinfo(point: &Path, kind: &str, options: &str) -> String {
    format!("30 25 0:26 / {} rw,relatime shared:9 - {kind} {kind} rw,{options}\n", point.display())
}

#[test]
fn version_1_writes_each_bound_below_our_own_group() {
    let dir = tempfile::tempdir().unwrap();
    let memory = dir.path().join("memory");
    fs::create_dir_all(memory.join("own/bay-x/one")).unwrap();
    for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
        fs::write(memory.join("own/bay-x/one").join(file), "").unwrap();
    }
    let found =
        Cgroups::from_tables("4:memory:/own\n0::/\n", &mountinfo(&memory, "cgroup", "memory"), "bay-x", true);
    assert_eq!(found.describe(), "cgroup v1 (memory), rlimits");
    assert!(!found.enforces());
    let groups = found.plan("one");
    create(&groups, bounds()).unwrap();
    let read = |file: &str| fs::read_to_string(groups[0].path.join(file)).unwrap();
    assert_eq!(read("memory.limit_in_bytes"), "1073741824");
    assert_eq!(read("memory.memsw.limit_in_bytes"), "1073741824");
}

#[test]
fn version_2_uses_the_true_root_when_privileged_and_says_what_it_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let group = dir.path().join("bay-x");
    fs::create_dir_all(group.join("one")).unwrap();
    fs::write(dir.path().join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
    fs::write(group.join("cgroup.subtree_control"), "").unwrap();
    for file in ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cgroup.procs"] {
        fs::write(group.join("one").join(file), "").unwrap();
    }
    let table = mountinfo(dir.path(), "cgroup2", "nsdelegate");
    // A plain file keeps only the last controller written; the kernel's adds up.
    let found = Cgroups::from_tables("0::/user.slice/a.scope\n", &table, "bay-x", true);
    assert_eq!(found.parents[0].path, group);
    let all = Cgroups {
        parents: vec![Parent {
            path: group.clone(),
            version: Version::V2,
            controllers: Controller::ALL.into_iter().collect(),
        }],
    };
    assert_eq!(all.describe(), "cgroup v2 (memory, pids, cpu)");
    assert!(all.enforces());
    let groups = all.plan("one");
    create(&groups, bounds()).unwrap();
    let read = |file: &str| fs::read_to_string(groups[0].path.join(file)).unwrap();
    assert_eq!(read("memory.max"), "1073741824");
    assert_eq!(read("memory.swap.max"), "0");
    assert_eq!(read("pids.max"), "256");
    assert_eq!(read("cpu.max"), "150000 100000");
    fs::write(groups[0].path.join("memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
    assert_eq!(oom_kills(&groups), 2);
}

#[test]
fn nothing_that_can_be_written_means_rlimits() {
    assert_eq!(Cgroups::from_tables("", "", "bay-x", false).describe(), "rlimits");
    let table = mountinfo(Path::new("/nonexistent"), "cgroup", "memory");
    assert_eq!(Cgroups::from_tables("4:memory:/\n", &table, "bay-x", false).describe(), "rlimits");
}

#[test]
fn a_mount_of_a_part_of_the_hierarchy_is_understood() {
    let mounts = parse_mounts("30 25 0:26 /docker/a\\040b /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n");
    assert_eq!(mounts[0].root, PathBuf::from("/docker/a b"));
    assert_eq!(own_path("8:pids:/docker/a b/c\n", &mounts[0]), Some(PathBuf::from("/docker/a b/c")));
}

#[test]
fn a_create_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let parent = Parent {
        path: dir.path().to_owned(),
        version: Version::V1,
        controllers: BTreeSet::from([Controller::Pids]),
    };
    // No `pids.max` in an ordinary directory, so the bound cannot be written.
    assert!(create(&Cgroups { parents: vec![parent] }.plan("one"), bounds()).is_err());
    assert!(!dir.path().join("one").exists());
}

#[test]
fn a_directory_that_was_tidied_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bay-x");
    let cgroups = Cgroups {
        parents: vec![Parent { path: path.clone(), version: Version::V1, controllers: BTreeSet::new() }],
    };
    let groups = cgroups.plan("one");
    create(&groups, bounds()).unwrap();
    cgroups.tidy();
    assert!(groups[0].path.exists(), "in use");
    remove(&groups, Duration::ZERO).unwrap();
    cgroups.tidy();
    assert!(!path.exists());
    create(&groups, bounds()).unwrap();
    assert!(groups[0].path.exists());
}

impl Cgroups {
    /// The directories made for this Bay, for tests to see them empty.
    pub(in crate::driver::local) fn parents_for_tests(&self) -> Vec<PathBuf> {
        self.parents.iter().map(|parent| parent.path.clone()).collect()
    }
}
