//! What can be seen and touched from inside, by user code and by init.

use serde_json::json;

use super::super::Driver;
use super::harness::*;

#[tokio::test]
async fn nothing_of_the_host_is_visible() {
    let bay = Bay::new();
    let container = bay.run("see").await;
    let listing = "import os, json\n\
        answer = {d: sorted(os.listdir(d)) for d in ['/', '/etc', '/var', '/.bay', '/tmp', '/run', '/dev']}\n\
        answer['env'] = sorted(os.environ)\n\
        answer['host'] = os.uname().nodename";
    let init = bay.init(&container, &format!("{listing}\nanswer['fds'] = sorted(os.listdir('/proc/self/fd'), key=int)\nanswer['pid'] = os.getpid()")).await;
    let root: Vec<&str> = init["/"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in &root {
        let expected = [
            ".bay",
            "bin",
            "dev",
            "etc",
            "lib",
            "lib32",
            "lib64",
            "libx32",
            "opt",
            "proc",
            "run",
            "sbin",
            "tmp",
            "usr",
            "var",
            "workspace",
        ];
        assert!(expected.contains(name), "/{name} in {root:?}");
    }
    for absent in ["home", "root", "sys", "mnt", "media", "srv", "boot"] {
        assert!(!root.contains(&absent), "/{absent}");
    }
    assert_eq!(init["/.bay"], json!(["ship", "spool"]));
    assert_eq!(init["/tmp"], json!([]));
    assert_eq!(init["/run"], json!([]));
    assert_eq!(init["/var"], json!(["run", "tmp"]));
    assert_eq!(init["env"], json!(["LANG", "PATH", "PWD"]), "a constant environment");
    assert_eq!(init["host"], "sandbox");
    assert_eq!(init["pid"], 1);
    let fds = init["fds"].as_array().unwrap();
    // 0 to 3, the connection, and the one that lists them.
    assert!(fds.len() <= 6 && fds[..4] == ["0", "1", "2", "3"], "{fds:?}");
    let etc = init["/etc"].as_array().unwrap();
    for absent in ["shadow", "gshadow", "sudoers", "ssh", "fstab", "machine-id", "environment", "apt"] {
        assert!(!etc.contains(&json!(absent)), "/etc/{absent}");
    }
    for present in ["passwd", "group", "hosts", "nsswitch.conf", "resolv.conf", "ld.so.cache"] {
        assert!(etc.contains(&json!(present)), "/etc/{present}");
    }
    let dev = init["/dev"].as_array().unwrap();
    for absent in ["vda", "sda", "mem", "kmsg", "net", "fuse", "kvm"] {
        assert!(!dev.contains(&json!(absent)), "/dev/{absent}");
    }
}

#[tokio::test]
async fn no_process_of_the_host_is_visible_and_no_secret_in_memory_tables() {
    let bay = Bay::new();
    let container = bay.run("procs").await;
    let pids = bay
        .user(&container, "import os\nanswer = [int(p) for p in os.listdir('/proc') if p.isdigit()]")
        .await;
    assert!(pids.as_array().unwrap().len() <= 4, "{pids}");
    let commands = bay
        .init(
            &container,
            "import os\nanswer = ' '.join(open(f'/proc/{p}/cmdline').read() for p in os.listdir('/proc') if p.isdigit())",
        )
        .await;
    assert!(!commands.as_str().unwrap().contains("bwrap"), "{commands}");
}

/// Opens for writing and closes again everything that is a switch of the kernel's; writes nothing.
const SWITCHES: &str = "import os\n\
    answer = []\n\
    tops = ['/proc/sys', '/sys'] + ['/proc/' + n for n in os.listdir('/proc') if not n.isdigit() and n not in ('self', 'thread-self', 'sys', 'pressure')]\n\
    for top in tops:\n\
    \x20   for at, _, files in ([(top, [], [''])] if os.path.isfile(top) else os.walk(top)):\n\
    \x20       for name in files:\n\
    \x20           path = os.path.join(at, name) if name else at\n\
    \x20           for flags in (os.O_WRONLY, os.O_RDWR):\n\
    \x20               try:\n\
    \x20                   os.close(os.open(path, flags | os.O_NONBLOCK))\n\
    \x20                   answer.append(path)\n\
    \x20               except OSError:\n\
    \x20                   pass\n\
    seen = sum(len(files) for _, _, files in os.walk('/proc/sys'))\n\
    assert seen > 100, seen\n";

#[tokio::test]
async fn no_switch_of_the_kernel_can_be_opened_for_writing() {
    let bay = Bay::new();
    let container = bay.run("switches").await;
    assert_eq!(bay.user(&container, SWITCHES).await, json!([]), "as user code");
    if is_root() {
        assert_eq!(bay.init(&container, SWITCHES).await, json!([]), "as init");
    }
    // With a single identity init is the owner of its IPC and PID namespaces and may set their bounds; covering that
    // would keep user code from having a /proc of its own, which Ship covers (as the stand-in does).
}

#[tokio::test]
async fn only_the_workspace_and_the_temporary_places_can_be_written() {
    let bay = Bay::new();
    let container = bay.run("write").await;
    let code = "import os\n\
        def ok(path):\n\
        \x20   try:\n\
        \x20       open(path, 'w').close(); os.remove(path); return True\n\
        \x20   except OSError: return False\n\
        answer = {d: ok(d + '/x') for d in ['', '/workspace', '/tmp', '/var/tmp', '/dev/shm', '/dev', '/etc', '/usr', '/usr/bin', '/.bay', '/opt', '/var', '/bin']}\n";
    for (who, answer) in
        [("user", bay.user(&container, code).await), ("init", bay.init(&container, code).await)]
    {
        for place in ["", "/dev", "/etc", "/usr", "/usr/bin", "/.bay", "/opt", "/var", "/bin"] {
            assert_eq!(answer[place], false, "{who} {place}");
        }
        if who == "user" {
            for place in ["/workspace", "/tmp", "/var/tmp", "/dev/shm"] {
                assert_eq!(answer[place], true, "{who} {place}");
            }
        }
    }
}

#[tokio::test]
async fn the_identities_inside_are_those_agreed() {
    let bay = Bay::new();
    let container = bay.run("who").await;
    let code = "import os\n\
        status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)\n\
        answer = {'uid': os.getuid(), 'gid': os.getgid(), 'groups': os.getgroups(), 'caps': status['CapEff'], 'nnp': status['NoNewPrivs'],\n\
        'workspace': [os.stat('/workspace').st_uid, os.stat('/workspace').st_gid], 'map': open('/proc/self/uid_map').read().split()}\n";
    let init = bay.init(&container, code).await;
    assert_eq!(init["nnp"], "1");
    assert_eq!(init["workspace"], json!([1000, 1000]));
    if is_root() {
        assert_eq!((&init["uid"], &init["gid"], &init["groups"]), (&json!(0), &json!(0), &json!([])));
        // CHOWN 0, KILL 5, SETGID 6, SETUID 7 and no other; no-new-privileges keeps it so at every exec.
        assert_eq!(init["caps"], "00000000000000e1");
        assert_eq!(init["map"], json!(["0", "100000", "65536"]));
        let user = bay.user(&container, code).await;
        assert_eq!((&user["uid"], &user["caps"]), (&json!(1000), &json!("0000000000000000")));
    } else {
        assert_eq!((&init["uid"], &init["gid"]), (&json!(1000), &json!(1000)));
        assert_eq!(init["caps"], "0000000000000000");
    }
}

#[tokio::test]
async fn a_normal_users_sandbox_can_nest_its_user_code() {
    if is_root() {
        return; // As root user code is another uid; the suite runs as a normal user too.
    }
    let bay = Bay::new();
    let container = bay.run("nest").await;
    let code = "import os\n\
        status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)\n\
        answer = [os.getpid(), os.getuid(), sorted(p for p in os.listdir('/proc') if p.isdigit()), status['CapEff']]";
    let answer = bay.user(&container, code).await;
    assert_eq!(answer, json!([1, 1000, ["1"], "0000000000000000"]));
}

#[tokio::test]
async fn no_network_means_loopback_alone() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let name = format!("bay-test-{}", std::process::id());
    let address = {
        use std::os::linux::net::SocketAddrExt;
        std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes()).unwrap()
    };
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let bay = Bay::new();
    let container = bay.run("none").await;
    let code = format!(
        "import os, socket\n\
        def reach(family, address):\n\
        \x20   s = socket.socket(family); s.settimeout(5)\n\
        \x20   try:\n\
        \x20       s.connect(address); return True\n\
        \x20   except OSError: return False\n\
        answer = {{'if': [n for _, n in socket.if_nameindex()],\n\
        'tcp': reach(socket.AF_INET, ('127.0.0.1', {port})), 'abstract': reach(socket.AF_UNIX, '\\0{name}'),\n\
        'out': reach(socket.AF_INET, ('203.0.113.1', 80))}}\n\
        own = socket.create_server(('127.0.0.1', 0))\n\
        answer['own'] = reach(socket.AF_INET, own.getsockname())\n"
    );
    let answer = bay.user(&container, &code).await;
    assert_eq!(answer, json!({"if": ["lo"], "tcp": false, "abstract": false, "out": false, "own": true}));
}

#[tokio::test]
async fn a_locker_outlives_its_containers_and_is_private_on_the_host() {
    use std::os::unix::fs::MetadataExt;
    let bay = Bay::new();
    let first = bay.run("one").await;
    bay.user(&first, "open('/workspace/note', 'w').write('kept')\nanswer = 0").await;
    bay.driver.destroy(&first).await.unwrap();
    let mut spec = spec("two");
    spec.volume = "lkr-one".to_owned();
    let second = bay.run_with(&spec, &config()).await;
    assert_eq!(bay.user(&second, "answer = open('/workspace/note').read()").await, "kept");
    let data = bay.dir.path().join("data");
    for private in [
        data.clone(),
        data.join("run"),
        data.join("lockers"),
        data.join("run/two"),
        data.join("lockers/lkr-one"),
    ] {
        assert_eq!(std::fs::metadata(&private).unwrap().mode() & 0o777, 0o700, "{}", private.display());
    }
    if is_root() {
        assert_eq!(std::fs::metadata(data.join("lockers/lkr-one/note")).unwrap().uid(), 101_000);
    }
    assert!(bay.driver.volume_usage("lkr-one").await.unwrap().is_some());
}

#[tokio::test]
async fn tls_and_names_have_what_they_need() {
    let bay = Bay::new();
    let container = bay.run("tls").await;
    let code = "import pwd, grp, socket, ssl, os\n\
        answer = {'cas': len(ssl.create_default_context().get_ca_certs()) if os.path.exists('/etc/ssl/certs/ca-certificates.crt') else None,\n\
        'user': pwd.getpwuid(1000).pw_name, 'home': pwd.getpwuid(1000).pw_dir, 'agent': pwd.getpwuid(900).pw_name, 'names': len(pwd.getpwall()),\n\
        'localhost': socket.gethostbyname('localhost'), 'self': socket.gethostbyname('sandbox')}\n";
    let answer = bay.user(&container, code).await;
    assert_eq!(answer["user"], "shipyard");
    assert_eq!(answer["home"], "/workspace");
    assert_eq!(answer["agent"], "bay");
    assert_eq!(answer["names"], 4);
    assert_eq!((&answer["localhost"], &answer["self"]), (&json!("127.0.0.1"), &json!("127.0.0.1")));
    if std::path::Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        assert!(answer["cas"].as_u64().unwrap() > 10, "{answer}");
    }
}
