//! The filter, run by a small interpreter of the same instructions the kernel would run.

use super::*;

/// What the filter answers to one call.
fn ask(arch: u32, nr: c_long, args: [u64; 6]) -> u32 {
    let program = filter();
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&(nr as u32).to_le_bytes());
    data[4..8].copy_from_slice(&arch.to_le_bytes());
    for (i, arg) in args.iter().enumerate() {
        data[16 + 8 * i..24 + 8 * i].copy_from_slice(&arg.to_le_bytes());
    }
    let (mut at, mut acc) = (0usize, 0u32);
    loop {
        let ins = &program[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { ins.jt } else { ins.jf });
        match ins.code {
            LOAD => acc = u32::from_le_bytes(data[ins.k as usize..ins.k as usize + 4].try_into().unwrap()),
            JUMP_EQ => at += jump(acc == ins.k),
            JUMP_SET => at += jump(acc & ins.k != 0),
            JUMP_GE => at += jump(acc >= ins.k),
            RETURN => return ins.k,
            code if code == (libc::BPF_JMP | libc::BPF_JA) as u16 => at += ins.k as usize,
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn call(nr: c_long, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    ask(AUDIT_ARCH, nr, all)
}

#[test]
fn ordinary_calls_pass() {
    for nr in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_futex] {
        assert_eq!(call(nr, &[1, 2, 3]), ALLOW, "{nr}");
    }
    assert_eq!(call(libc::SYS_clone, &[libc::SIGCHLD as u64]), ALLOW);
    assert_eq!(call(libc::SYS_unshare, &[libc::CLONE_FILES as u64]), ALLOW);
    assert_eq!(call(libc::SYS_prlimit64, &[0, 7]), ALLOW);
}

#[test]
fn user_namespaces_are_refused_however_they_are_asked_for() {
    let flag = u64::from(CLONE_NEWUSER);
    assert_eq!(call(libc::SYS_clone, &[flag | libc::SIGCHLD as u64]), errno(libc::EPERM));
    // The kernel ignores the upper half of this argument's flags, so nothing there may hide the lower.
    assert_eq!(call(libc::SYS_clone, &[flag | 1 << 40]), errno(libc::EPERM));
    assert_eq!(call(libc::SYS_unshare, &[flag | libc::CLONE_NEWNS as u64]), errno(libc::EPERM));
    assert_eq!(call(libc::SYS_clone3, &[]), errno(libc::ENOSYS));
    assert_eq!(call(libc::SYS_setns, &[3, 0]), errno(libc::EPERM));
}

#[test]
fn only_common_socket_families_exist() {
    for family in FAMILIES {
        assert_eq!(call(libc::SYS_socket, &[family as u64, 1]), ALLOW, "{family}");
    }
    for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET, libc::AF_BLUETOOTH] {
        assert_eq!(call(libc::SYS_socket, &[family as u64, 1]), errno(libc::EAFNOSUPPORT), "{family}");
    }
}

#[test]
fn a_socket_cannot_be_tied_to_a_device_but_other_options_work() {
    assert_eq!(call(libc::SYS_setsockopt, &[3, u64::from(SOL_SOCKET), 25]), errno(libc::EPERM));
    assert_eq!(call(libc::SYS_setsockopt, &[3, u64::from(SOL_SOCKET), 62]), errno(libc::EPERM));
    assert_eq!(call(libc::SYS_setsockopt, &[3, 0, 50]), errno(libc::EPERM));
    assert_eq!(call(libc::SYS_setsockopt, &[3, u64::from(SOL_SOCKET), 2]), ALLOW);
    assert_eq!(call(libc::SYS_setsockopt, &[3, 0, 1]), ALLOW);
    assert_eq!(call(libc::SYS_setsockopt, &[3, 6, 25]), ALLOW);
}

#[test]
fn terminal_injection_and_the_limits_of_process_one_are_refused() {
    assert_eq!(call(libc::SYS_ioctl, &[0, 0x5412]), errno(libc::EPERM));
    assert_eq!(call(libc::SYS_ioctl, &[0, 0x5412 | 1 << 32]), errno(libc::EPERM));
    assert_eq!(call(libc::SYS_ioctl, &[0, 0x5413]), ALLOW);
    assert_eq!(call(libc::SYS_prlimit64, &[1, 7]), errno(libc::EPERM));
}

#[test]
fn foreign_architectures_have_no_calls() {
    assert_eq!(ask(0x4000_0003, 1, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(ask(AUDIT_ARCH, 0x4000_0000 | 165, [0; 6]), errno(libc::ENOSYS));
}

#[test]
fn every_listed_call_is_refused_and_jumps_stay_in_range() {
    for Rule(nr, when, code) in rules() {
        if matches!(when, When::Always) {
            assert_eq!(call(nr, &[]), errno(code), "{nr}");
        }
    }
    assert!(filter().len() < 4096);
}
