//! User code at its worst: each time the call gets a clear answer and the next one works.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "test code")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use bay_ship_api::init::Isolation;
use serde_json::json;
use support::{Client, Container, Setup, isolations, wait_for};

fn both(test: impl Fn(&Container, &mut Client, Isolation)) {
    for isolation in isolations() {
        let container = Container::new(isolation);
        let mut client = container.client();
        test(&container, &mut client, isolation);
    }
}

/// The agent's peak memory stays within a few answers' worth, whatever went through it.
fn agent_stayed_small(container: &Container) {
    let peak = container.kib(container.agent(), "VmHWM");
    assert!(peak < 64 * 1024, "the agent grew to {peak} KiB");
}

#[test]
fn a_locker_full_of_traps_neither_breaks_nor_owns_the_start() {
    for isolation in isolations() {
        let setup = Setup::new(isolation);
        let trap =
            "import os\nopen('/tmp/sprung', 'a').write(__file__ + '\\n')\nraise SystemExit('trapped')\n";
        let shell_trap = "echo trap >> /tmp/sprung; exit 9\n";
        for name in [
            "random.py",
            "sitecustomize.py",
            "usercustomize.py",
            "ipykernel.py",
            "ipykernel_launcher.py",
            "IPython.py",
            "zmq.py",
            "json.py",
            "traitlets.py",
            "debugpy.py",
            "ipython_config.py",
            "ipython_kernel_config.py",
            ".ipython/profile_default/startup/00-trap.py",
            ".ipython/profile_default/ipython_config.py",
            ".ipython/profile_default/ipython_kernel_config.py",
            ".ipython/extensions/trap.py",
            ".jupyter/jupyter_config.py",
            ".config/ipython/profile_default/startup/trap.py",
            ".local/lib/python3.11/site-packages/sitecustomize.py",
            ".local/lib/python3.11/site-packages/usercustomize.py",
            ".pythonrc.py",
        ] {
            let path = setup.workspace().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, trap).unwrap();
        }
        let pth = setup.workspace().join(".local/lib/python3.11/site-packages/trap.pth");
        fs::write(pth, "import os; open('/tmp/sprung', 'a').write('pth')\n").unwrap();
        fs::write(setup.workspace().join("pyvenv.cfg"), "home = /nowhere\n").unwrap();
        for name in [".bashrc", ".bash_profile", ".profile", ".bash_login", ".env", ".bash_aliases"] {
            fs::write(setup.workspace().join(name), shell_trap).unwrap();
        }
        let mut setup = setup;
        for (name, value) in [
            ("PYTHONSTARTUP", "/workspace/.pythonrc.py"),
            ("PYTHONPATH", "/workspace"),
            ("PYTHONHOME", "/workspace"),
            ("IPYTHONDIR", "/workspace/.ipython"),
            ("JUPYTER_CONFIG_DIR", "/workspace/.jupyter"),
            ("LD_PRELOAD", "/workspace/nothing.so"),
        ] {
            setup.config.env.insert(name.into(), value.into());
        }
        let container = setup.start();
        let mut client = container.client();
        assert_eq!(
            client.python_ok("import random, json; print(random.__file__.startswith('/usr'), 6 * 7)"),
            "True 42"
        );
        assert_eq!(client.python_ok("import os; print(os.path.exists('/tmp/sprung'))"), "False");
        // They are taken over once nothing can be disturbed any more.
        assert_eq!(client.python_ok("print(os.environ['PYTHONSTARTUP'])"), "/workspace/.pythonrc.py");
        let answer = client.shell("cat /tmp/sprung; echo clean");
        assert_eq!((answer.stdout.as_str(), answer.exit_code), ("clean\n", Some(0)));
    }
}

#[test]
fn a_timeout_interrupts_and_keeps_the_state() {
    both(|_, client, _| {
        client.python_ok("kept = 1");
        for code in ["while True: pass", "import time; time.sleep(60)", "import os; os.system('sleep 60')"] {
            let answer = client.python_within(code, 1);
            assert!(!answer.success && answer.timed_out, "{code}: {answer:?}");
            assert!(answer.error.unwrap().contains("keeps its state"), "{code}");
            assert_eq!((answer.kernel_seq, client.python_ok("print(kept)").as_str()), (1, "1"), "{code}");
        }
    });
}

#[test]
fn a_kernel_that_ignores_the_interrupt_is_restarted_and_says_so() {
    both(|_, client, _| {
        client.python_ok("lost = 1");
        let began = Instant::now();
        let answer = client.python_within(
            "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
            1,
        );
        assert!(answer.timed_out && began.elapsed() >= Duration::from_secs(6), "{answer:?}");
        assert_eq!(answer.kernel_seq, 2);
        assert!(answer.error.unwrap().contains("kernel_seq 2"));
        let next = client.python("'lost' in dir()");
        assert_eq!((next.output.as_str(), next.kernel_seq, next.data.execution_count), ("False", 2, Some(1)));
    });
}

#[test]
fn a_kernel_that_dies_is_reported_and_replaced() {
    both(|_, client, _| {
        for (turn, (code, words)) in [
            ("import os; os._exit(3)", "exit status 3"),
            ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
            ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
            ("exec(type((lambda: 0).__code__)(0, 0, 0, 0, 0, 0, b'\\x90\\x01' * 9, (), (), (), '', '', '', 0, b'', b'', (), ()))", ""),
        ]
        .into_iter()
        .enumerate()
        .take(3)
        {
            let answer = client.python(code);
            let error = answer.error.unwrap();
            assert!(!answer.success && error.contains("died") && error.contains(words), "{error}");
            assert_eq!(answer.kernel_seq, turn as u64 + 2);
            let next = client.python("1");
            assert_eq!((next.output.as_str(), next.kernel_seq), ("1", turn as u64 + 2));
        }
    });
}

#[test]
fn a_kernel_killed_while_idle_is_replaced() {
    both(|_, client, _| {
        client.python_ok("1");
        client.shell_ok("pkill -9 -f ipykernel_launcher");
        // A call that meets the dying one is told so; the next one has a new kernel either way.
        let next = wait_for(|| Some(client.python("1")).filter(|answer| answer.success), "the next kernel");
        assert_eq!(next.kernel_seq, 2);
    });
}

#[test]
fn a_kernel_stopped_while_it_starts_goes_on() {
    both(|_, client, _| {
        client.python_ok("1");
        let began = Instant::now();
        client.shell_ok(
            "pkill -9 -f '[i]pykernel_launcher'; sleep 0.1; pkill -STOP -f '[i]pykernel_launcher'; true",
        );
        let next = wait_for(
            || Some(client.python_within("1", 1)).filter(|answer| answer.success),
            "the next kernel",
        );
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}: {next:?}", began.elapsed());
    });
}

#[test]
fn a_hundred_megabytes_of_output_are_bounded_everywhere() {
    both(|container, client, _| {
        for code in [
            "print('x' * 100_000_000)",
            "for _ in range(1000): print('y' * 100_000)",
            "import sys\nfor _ in range(20000): sys.stdout.write('z' * 5000); sys.stdout.flush()",
        ] {
            let answer = client.python_within(code, 100);
            assert!(answer.success && answer.truncated, "{code}: {:?}", answer.error);
            assert!((1_000_000..=1 << 20).contains(&answer.output.len()), "{code}: {}", answer.output.len());
        }
        let answer = client.python("print('é' * 3_000_000)");
        assert!(
            answer.truncated && answer.output.len() <= 1 << 20 && answer.output.chars().all(|c| c == 'é')
        );
        let answer = client.shell("head -c 100000000 /dev/zero | tr '\\0' x; head -c 100000000 /dev/zero | tr '\\0' y >&2; echo end");
        assert!(answer.success && answer.truncated);
        assert_eq!((answer.stdout.len(), answer.stderr.len()), (1 << 20, 1 << 20));
        assert_eq!(client.python_ok("print('after')"), "after");
        agent_stayed_small(container);
    });
}

#[test]
fn displays_and_exceptions_without_end_are_bounded() {
    both(|container, client, _| {
        let answer = client.python(
            "from IPython.display import display, HTML\nfor i in range(2000): display(HTML('x' * 100_000))",
        );
        assert!(answer.truncated, "{:?}", answer.error);
        assert!(answer.data.output.results.len() < 256);
        let answer = client.python("raise ValueError('x' * 50_000_000)");
        assert!(!answer.success && answer.error.unwrap().len() < 1 << 20);
        let answer = client.python("class E(Exception): pass\nE.__name__ = 'y' * 10_000_000\nraise E()");
        assert!(!answer.success);
        agent_stayed_small(container);
    });
}

#[test]
fn a_timeout_kills_the_whole_group() {
    both(|_, client, _| {
        let began = Instant::now();
        let answer = client.shell_with(&json!({
            "command": "trap '' TERM; (trap '' TERM; sleep 300) & echo waiting; sleep 300", "timeout": 1,
        }));
        assert!(answer.timed_out && !answer.success && answer.exit_code.is_none(), "{answer:?}");
        assert_eq!(answer.stdout, "waiting\n");
        assert!(
            (Duration::from_secs(3)..Duration::from_secs(20)).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
        wait_for(|| client.shell("pgrep sleep").stdout.is_empty().then_some(()), "the group to be gone");

        let began = Instant::now();
        let answer = client.shell_with(&json!({"command": "sleep 300", "timeout": 1}));
        assert!(answer.timed_out && began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(answer.signal.as_deref(), Some("SIGTERM"));
    });
}

#[test]
fn a_timeout_also_finds_what_left_the_group() {
    both(|_, client, isolation| {
        let hide = "setsid sleep 301 & setsid bash -c 'sleep 302; true' & sleep 300";
        let answer = client.shell_with(&json!({"command": hide, "timeout": 1}));
        assert!(answer.timed_out);
        if isolation == Isolation::TwoUid {
            wait_for(
                || client.shell("pgrep sleep").stdout.is_empty().then_some(()),
                "the hidden to be found",
            );
        }
    });
}

/// Bounds by rlimit here: the tests own no cgroup.
fn with_process_limit(isolation: Isolation) -> Container {
    let mut setup = Setup::new(isolation);
    setup.config.limits.enforce = true;
    setup.config.limits.pids = 100;
    setup.start()
}

#[test]
fn a_fork_bomb_in_the_shell_ends_with_its_timeout() {
    for isolation in isolations() {
        let container = with_process_limit(isolation);
        let mut client = container.client();
        client.python_ok("kept = 1");
        let began = Instant::now();
        let answer =
            client.shell_with(&json!({"command": "bomb() { bomb | bomb & }; bomb; sleep 300", "timeout": 2}));
        assert!(answer.timed_out && began.elapsed() < Duration::from_secs(30), "{answer:?}");
        wait_for(|| client.shell("true").success.then_some(()), "processes to be had again");
        assert_eq!(client.python_ok("print(kept)"), "1");
        let listed = client.post("/fs/list_dir", &json!({"path": "."}));
        assert!(listed.is_ok());
    }
}

#[test]
fn a_fork_bomb_in_python_ends_with_its_timeout() {
    for isolation in isolations() {
        let container = with_process_limit(isolation);
        let mut client = container.client();
        client.python_ok("1");
        let code = "import os\nwhile True:\n    try: os.fork()\n    except BaseException: pass";
        let answer = client.python_within(code, 2);
        assert!(!answer.success, "{answer:?}");
        assert_eq!(client.get("/health").status, 200);
        let next = wait_for(
            || client.post("/ipython/exec", &json!({"code": "6*7", "timeout": 30})).ok(),
            "a kernel after the bomb",
        );
        assert_eq!(next["output"], "42", "{next}");
        wait_for(
            || client.post("/shell/exec", &json!({"command": "true", "timeout": 9})).ok(),
            "a shell after the bomb",
        );
    }
}

#[test]
fn the_queue_is_first_come_first_served_and_bounded() {
    both(|container, client, _| {
        client.python_ok("seen = []");
        let sleeper = std::thread::spawn({
            let mut client = container.client();
            move || {
                client.python(
                    "import time\nwhile not __import__('os').path.exists('/tmp/go'): time.sleep(0.01)",
                )
            }
        });
        wait_for(
            || client.shell("ps -eo args | grep -c '[i]pykernel'").success.then_some(()),
            "the first call to run",
        );
        let mut waiting = Vec::new();
        let mut busy = 0;
        // One connection after the other, so that the order is known.
        for turn in 0..40 {
            let mut other = container.client();
            let code =
                json!({"code": format!("seen.append({turn}); print({turn})"), "timeout": 30}).to_string();
            let head = format!(
                "POST /ipython/exec HTTP/1.1\r\nhost: s\r\ncontent-length: {}\r\n\r\n{code}",
                code.len()
            );
            waiting.push(std::thread::spawn(move || other.raw(head.as_bytes()).unwrap().result()));
            // Answered at once: nothing about the kernel is asked.
            client.get("/health");
        }
        wait_for(
            || {
                let done = waiting.iter().filter(|call| call.is_finished()).count();
                (done >= 40 - 17).then_some(())
            },
            "the surplus to be refused",
        );
        client.shell_ok("touch /tmp/go");
        assert!(sleeper.join().unwrap().success);
        let mut ran = Vec::new();
        for call in waiting {
            match call.join().unwrap() {
                Ok(answer) => ran.push(answer["output"].as_str().unwrap().trim().to_owned()),
                Err(refusal) => {
                    assert_eq!(refusal, (429, "busy".to_owned()));
                    busy += 1;
                }
            }
        }
        assert!((16..=17).contains(&ran.len()) && busy == 40 - ran.len(), "{ran:?}");
        let order = client.python_ok("print(*seen)");
        let mut sorted = ran.clone();
        sorted.sort_by_key(|turn| turn.parse::<u32>().unwrap());
        assert_eq!(order.split(' ').count(), sorted.len());
    });
}

#[test]
fn user_code_cannot_see_signal_trace_or_read_the_agent() {
    both(|container, client, isolation| {
        client.shell_ok(
            "for p in $(ls /proc | grep '^[0-9]'); do [ $p = $$ ] || kill -9 $p 2>/dev/null; done; true",
        );
        let mut client = container.client();
        match isolation {
            Isolation::TwoUid => {
                for file in ["mem", "environ", "maps", "fd/", "root/", "cwd/", "stack", "syscall"] {
                    for pid in [1, 2] {
                        let answer =
                            client.shell(&format!("ls /proc/{pid}/{file} && head -c1 /proc/{pid}/{file}"));
                        assert!(!answer.success, "/proc/{pid}/{file}: {answer:?}");
                    }
                }
                assert_eq!(
                    client.shell_ok("stat -c %u /proc/1/environ /proc/2/environ"),
                    "0\n0",
                    "not dumpable"
                );
            }
            Isolation::NestedPid => {
                // All that is visible is the nest and user code; the nest does not let itself be read.
                assert_eq!(
                    client.shell_ok("cat /proc/1/comm; cat /proc/[0-9]*/comm | grep -cE 'agent|init'; true"),
                    "ship-nest\n0"
                );
                for file in ["mem", "environ", "maps", "fd/"] {
                    assert!(
                        !client.shell(&format!("ls /proc/1/{file} && head -c1 /proc/1/{file}")).success,
                        "{file}"
                    );
                }
            }
        }
        let trace = "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n\
                     print([c.ptrace(16, pid, 0, 0) for pid in (1, 2)], [c.process_vm_readv(pid, 0, 0, 0, 0, 0) for pid in (1,)])";
        let said = client.python_ok(trace);
        assert!(said.starts_with("[-1,"), "{said}");
        let squeeze = "import resource\ntry:\n    resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3)); print('squeezed')\nexcept (PermissionError, OSError) as e: print('refused')";
        assert_eq!(client.python_ok(squeeze), "refused");
        client.shell_ok("true");
        assert!(!container.ended());
    });
}

#[test]
fn the_kernel_is_not_reachable_by_what_user_code_must_not_do() {
    both(|_, client, _| {
        let probe = r"
import ctypes, os, socket
c = ctypes.CDLL(None, use_errno=True)
def errno(name, *args):
    ctypes.set_errno(0)
    r = getattr(c, name)(*args)
    return ctypes.get_errno() if r == -1 else 0
print('unshare', errno('unshare', 0x10000000))
print('unshare+', errno('unshare', 0x10020000))
print('clone3', errno('syscall', 435, 0, 0))
print('mount', errno('mount', b'none', b'/tmp', b'tmpfs', 0, 0))
print('setns', errno('setns', 0, 0))
print('keyctl', errno('syscall', 250, 0, 0, 0, 0, 0))
print('bpf', errno('syscall', 321, 0, 0, 0))
print('uring', errno('syscall', 425, 1, 0))
print('userfaultfd', errno('syscall', 323, 0))
print('perf', errno('syscall', 298, 0, 0, 0, 0, 0))
for family in (40, 38, 17):
    try: socket.socket(family, socket.SOCK_STREAM); print('socket', family, 0)
    except OSError as e: print('socket', family, e.errno)
";
        let said = client.python_ok(probe);
        let (eperm, enosys, no_family) = (1, 38, 97);
        let wanted = [
            ("unshare", eperm),
            ("unshare+", eperm),
            ("clone3", enosys),
            ("mount", eperm),
            ("setns", eperm),
            ("keyctl", eperm),
            ("bpf", eperm),
            ("uring", eperm),
            ("userfaultfd", eperm),
            ("perf", eperm),
        ]
        .map(|(name, errno)| format!("{name} {errno}"))
        .into_iter()
        .chain([40, 38, 17].map(|family| format!("socket {family} {no_family}")));
        assert_eq!(said.lines().collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
        assert!(!client.shell("unshare -U true").success);
        let status = client.shell_ok(
            "grep -E '^(CapEff|CapPrm|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t\\n'",
        );
        assert_eq!(
            status,
            "CapPrm:0000000000000000CapEff:0000000000000000CapAmb:0000000000000000NoNewPrivs:1Seccomp:2"
        );
        assert_eq!(client.shell_ok("cat /proc/self/oom_score_adj"), "500");
        let fds = client.shell_ok("ls /proc/self/fd | tr '\\n' ' '");
        assert_eq!(fds.trim(), "0 1 2 3", "the fourth is ls's own");
        let writable = client.shell(
            "for f in $(find /proc/sys -type f 2>/dev/null); do (: >> $f) 2>/dev/null && echo $f; done",
        );
        assert_eq!(writable.stdout, "");
    });
}

#[test]
fn the_container_ends_with_its_agent() {
    for isolation in isolations() {
        let container = Container::new(isolation);
        container.client().python_ok("1");
        let agent = rustix::process::Pid::from_raw(container.agent().cast_signed()).unwrap();
        rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
        wait_for(|| container.ended().then_some(()), "the container to end");
        assert!(container.setup.log().contains("the agent ended"), "{}", container.setup.log());
    }
}

#[test]
fn a_caller_that_goes_away_hurts_nobody() {
    both(|container, client, _| {
        client.python_ok("kept = 1");
        for path in ["/ipython/exec", "/shell/exec"] {
            let body =
                json!({"code": "import time; time.sleep(2)", "command": "sleep 2", "timeout": 3}).to_string();
            let gone = container.client();
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: s\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            gone.send_only(head.as_bytes());
        }
        assert_eq!(client.python_ok("print(kept)"), "1");
        client.shell_ok("true");
    });
}
