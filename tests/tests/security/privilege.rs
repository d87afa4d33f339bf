//! What user code may ask the kernel for, and of init and agent.

use bay_tests::{Bay, Options, Sandbox};
use serde_json::{Value, json};

#[test]
fn user_code_has_no_privilege_and_cannot_get_any() {
    let bay = Bay::start(Options::default());
    let sandbox = bay.api().sandbox(json!({}));
    status(&sandbox);
    namespaces(&sandbox);
    init_and_agent(&sandbox);
    descriptors(&sandbox);
    assert_eq!(sandbox.show()["session_seq"], 1, "and none of it ended the session");
}

fn status(sandbox: &Sandbox) {
    for text in [
        sandbox.shell_ok("cat /proc/self/status"),
        sandbox.python_ok("print(open('/proc/self/status').read())"),
    ] {
        let field = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{name} in {text}")).trim().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(set).trim_start_matches('0'), "", "{set}: {text}");
        }
        assert_eq!(field("NoNewPrivs"), "1");
        assert_eq!(field("Seccomp"), "2");
        for ids in ["Uid", "Gid"] {
            assert!(field(ids).split_whitespace().all(|id| id == "1000"), "{ids}: {text}");
        }
    }
    assert!(sandbox.shell_ok("cat /proc/self/oom_score_adj").parse::<i32>().expect("a number") > 0);
    let lowered = sandbox.shell("echo -1000 > /proc/self/oom_score_adj");
    assert_eq!(lowered["success"], false, "{lowered}");
}

/// Calls the kernel directly; prints `{name: errno or "done"}`. Each in a child, so that success leaves no trace.
const ASK: &str = r#"
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
def ask(call):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        ctypes.set_errno(0)
        got = call()
        os.write(w, (str(ctypes.get_errno()) if got == -1 else 'done').encode())
        os._exit(0)
    os.close(w)
    said = os.read(r, 64).decode()
    os.close(r); os.waitpid(pid, 0)
    return said or 'killed'
NEW = dict(user=0x10000000, mnt=0x20000, pid=0x20000000, net=0x40000000, ipc=0x8000000, uts=0x4000000, cgroup=0x2000000)
answers = {}
for name, flag in NEW.items():
    answers['unshare ' + name] = ask(lambda: libc.unshare(flag))
    answers['clone ' + name] = ask(lambda: libc.syscall(56, flag | 17, 0, 0, 0, 0))
both = NEW['user'] | NEW['mnt']
answers['unshare user+mnt'] = ask(lambda: libc.unshare(both))
args = (ctypes.c_uint64 * 11)(NEW['user'], 0, 0, 0, 17)
answers['clone3'] = ask(lambda: libc.syscall(435, ctypes.byref(args), 88))
answers['mount'] = ask(lambda: libc.mount(b't', b'/tmp', b'tmpfs', 0, None))
answers['umount'] = ask(lambda: libc.umount2(b'/workspace', 2))
answers['chroot'] = ask(lambda: libc.chroot(b'/tmp'))
answers['pivot_root'] = ask(lambda: libc.syscall(155, b'/tmp', b'/tmp'))
answers['setuid'] = ask(lambda: libc.setuid(0))
answers['setgid'] = ask(lambda: libc.setgid(0))
answers['setuid agent'] = ask(lambda: libc.setuid(900))
answers['mknod'] = ask(lambda: libc.syscall(133, b'/tmp/mem', 0o20666, 0x101))
answers['sethostname'] = ask(lambda: libc.sethostname(b'x', 1))
answers['settime'] = ask(lambda: libc.settimeofday(ctypes.byref((ctypes.c_long * 2)(1, 0)), None) if False else libc.syscall(159, None))
answers['chown'] = ask(lambda: libc.chown(b'/workspace', 0, 0))
for ns in ('user', 'mnt', 'net', 'pid'):
    def enter():
        try: fd = os.open('/proc/1/ns/' + ns, os.O_RDONLY)
        except OSError as e:
            ctypes.set_errno(e.errno); return -1
        return libc.setns(fd, 0)
    answers['setns ' + ns] = ask(enter)
print(json.dumps(answers))
"#;

fn namespaces(sandbox: &Sandbox) {
    // A newer Python warns of forks before that.
    let asked = sandbox.python_ok(ASK);
    let said: Value = serde_json::from_str(asked.lines().last().unwrap_or_default()).expect("JSON");
    for (what, answer) in said.as_object().expect("an object") {
        assert_ne!(answer, "done", "user code may {what}: {said}");
        assert_ne!(answer, "killed", "{what} should answer an error: {said}");
    }
    // Not forbidden but unknown, so that libraries fall back to clone.
    assert_eq!(said["clone3"], "38", "clone3 answers ENOSYS: {said}");
    // And threads and children still work.
    assert_eq!(
        sandbox.python_ok(
            "import threading\nt = threading.Thread(target=print, args=('t',))\nt.start(); t.join()"
        ),
        "t"
    );
    assert_eq!(
        sandbox.shell_ok(
            "unshare -Ur true 2>/dev/null && echo new; bwrap --ro-bind / / true 2>/dev/null && echo b; true"
        ),
        ""
    );
}

/// Tries everything on each process it can see that is neither itself nor a plain child; prints what worked. Not
/// niceness: where there is one uid its owner may slow the nest down, which serves nobody but itself.
const PRY: &str = r#"
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
worked, seen = [], []
for pid in sorted(int(p) for p in os.listdir('/proc') if p.isdigit()):
    try: cmd = open(f'/proc/{pid}/cmdline', 'rb').read().replace(b'\0', b' ').decode().strip()
    except OSError: continue
    try: comm = open(f'/proc/{pid}/comm').read().strip()
    except OSError: comm = ''
    if pid != 1 and '/.bay/ship' not in cmd and comm not in ('ship', 'bwrap'): continue
    seen.append([pid, comm])
    for name in ('mem', 'environ', 'maps', 'auxv', 'syscall', 'stack', 'pagemap', 'personality'):
        try:
            fd = os.open(f'/proc/{pid}/{name}', os.O_RDONLY)
            if name in ('mem', 'pagemap') or os.read(fd, 16): worked.append([pid, 'read ' + name])
            os.close(fd)
        except OSError: pass
    for name in ('mem', 'oom_score_adj', 'uid_map', 'clear_refs', 'coredump_filter'):
        try:
            os.close(os.open(f'/proc/{pid}/{name}', os.O_WRONLY)); worked.append([pid, 'write ' + name])
        except OSError: pass
    for name in ('fd', 'map_files', 'fdinfo'):
        try:
            if os.listdir(f'/proc/{pid}/{name}'): worked.append([pid, 'list ' + name])
        except OSError: pass
    for name in ('root', 'cwd', 'exe'):
        try: worked.append([pid, name, os.readlink(f'/proc/{pid}/{name}')])
        except OSError: pass
    if libc.ptrace(16, pid, 0, 0) == 0: worked.append([pid, 'ptrace attach'])
    if libc.ptrace(0x4206, pid, 0, 0) == 0: worked.append([pid, 'ptrace seize'])
    buf = ctypes.create_string_buffer(8)
    iov = (ctypes.c_uint64 * 2)(ctypes.addressof(buf), 8)
    if libc.process_vm_readv(pid, iov, 1, iov, 1, 0) > 0: worked.append([pid, 'process_vm_readv'])
    fd = libc.syscall(434, pid, 0)
    if fd >= 0:
        if libc.syscall(438, fd, 3, 0) >= 0: worked.append([pid, 'pidfd_getfd'])
        os.close(fd)
print(json.dumps([worked, seen]))
"#;

fn init_and_agent(sandbox: &Sandbox) {
    let said: Value = serde_json::from_str(&sandbox.python_ok(PRY)).expect("JSON");
    assert_eq!(said[0], json!([]), "user code can do this to init or agent (seen: {})", said[1]);
    // What can be signalled at all survives it: see `faults`.
}

fn descriptors(sandbox: &Sandbox) {
    let held = sandbox.shell_ok("ls -l /proc/self/fd");
    assert!(!held.contains("socket:"), "a command inherits a socket: {held}");
    // 0, 1, 2, and the directory that ls itself has open.
    let others: Vec<_> = held
        .lines()
        .filter(|l| l.contains(" -> ") && !l.contains("/dev/null") && !l.contains("pipe:"))
        .collect();
    assert!(others.len() == 1 && others[0].contains("/proc/"), "a command inherits descriptors: {held}");
    let listening = sandbox.shell_ok("cat /proc/net/unix");
    assert!(!listening.contains("bay-test"), "a socket of the host shows by name: {listening}");
}
