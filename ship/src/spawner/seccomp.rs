//! The filter that spawner, agent and every user process run under: no new user namespaces, none of the kernel's attack surface
//! that code in a sandbox has no business with. Denied calls fail as if the kernel did not allow or have them.
//!
//! Written as a list of rules and assembled here, because two answers (EPERM and ENOSYS) and checks of single
//! arguments are all it needs.

use std::ffi::c_long;

use libc::sock_filter;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

/// Offsets in `struct seccomp_data`: number, architecture, then six 64-bit arguments (little endian here).
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const fn offset_arg(n: u32) -> u32 {
    16 + 8 * n
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const JUMP_GE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const fn errno(code: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | (code as u32 & 0xFFFF)
}

const CLONE_NEWUSER: u32 = libc::CLONE_NEWUSER as u32;
/// What a process may ask of a socket: local, IPv4, IPv6, and netlink, which resolvers use. Among the others is
/// AF_VSOCK, which no network namespace confines.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// When a listed call is refused. Arguments are compared by their low 32 bits: the kernel reads these as `int`.
enum When {
    Always,
    /// Any of these bits set in the argument.
    Bits(u32, u32),
    /// The argument equals one of these.
    Is(u32, &'static [u32]),
    /// The argument equals none of these.
    IsNot(u32, &'static [i32]),
    /// Both arguments equal.
    Both((u32, u32), (u32, &'static [u32])),
}

struct Rule(c_long, When, i32);

const SOL_SOCKET: u32 = libc::SOL_SOCKET as u32;
/// SO_BINDTODEVICE and SO_BINDTOIFINDEX: on IPv4 a socket tied to a device takes any destination without a route
/// for on-link, and so walks past the unreachable routes of a network policy.
const BIND_TO_DEVICE: [u32; 2] = [25, 62];
/// IP_UNICAST_IF does the same.
const UNICAST_IF: [u32; 1] = [50];
const TTY_INJECTION: [u32; 2] = [0x5412, 0x541C];

fn rules() -> Vec<Rule> {
    use When::{Always, Bits, Both, Is, IsNot};
    let mut rules = vec![
        Rule(libc::SYS_clone, Bits(0, CLONE_NEWUSER), libc::EPERM),
        // Its flags are behind a pointer; ENOSYS makes C libraries fall back to clone.
        Rule(libc::SYS_clone3, Always, libc::ENOSYS),
        Rule(libc::SYS_unshare, Bits(0, CLONE_NEWUSER), libc::EPERM),
        Rule(libc::SYS_setns, Always, libc::EPERM),
        Rule(libc::SYS_socket, IsNot(0, &FAMILIES), libc::EAFNOSUPPORT),
        Rule(libc::SYS_socketpair, IsNot(0, &FAMILIES), libc::EAFNOSUPPORT),
        Rule(libc::SYS_setsockopt, Both((1, SOL_SOCKET), (2, &BIND_TO_DEVICE)), libc::EPERM),
        Rule(libc::SYS_setsockopt, Both((1, 0), (2, &UNICAST_IF)), libc::EPERM),
        Rule(libc::SYS_ioctl, Is(1, &TTY_INJECTION), libc::EPERM),
        // The nest is process 1 of its own world and shares the user's id: nobody may squeeze its limits.
        Rule(libc::SYS_prlimit64, Is(0, &[1]), libc::EPERM),
    ];
    let refused = [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_mount_setattr,
        libc::SYS_open_by_handle_at,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_reboot,
        libc::SYS_acct,
        libc::SYS_quotactl,
        libc::SYS_syslog,
        libc::SYS_lookup_dcookie,
        libc::SYS_fanotify_init,
    ];
    rules.extend(refused.into_iter().map(|nr| Rule(nr, Always, libc::EPERM)));
    #[cfg(target_arch = "x86_64")]
    rules.extend(
        [libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt]
            .into_iter()
            .map(|nr| Rule(nr, Always, libc::EPERM)),
    );
    rules
}

fn op(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The instructions that judge one call, entered with its number already matched; they end in a return.
fn judge(when: &When, code: i32) -> Vec<sock_filter> {
    let deny = op(RETURN, errno(code), 0, 0);
    let allow = op(RETURN, ALLOW, 0, 0);
    match *when {
        When::Always => vec![deny],
        When::Bits(arg, bits) => {
            vec![op(LOAD, offset_arg(arg), 0, 0), op(JUMP_SET, bits, 0, 1), deny, allow]
        }
        When::Is(arg, values) => listed(arg, values.iter().copied(), deny, allow),
        When::IsNot(arg, values) => listed(arg, values.iter().map(|v| *v as u32), allow, deny),
        When::Both((arg, value), (other, values)) => {
            let rest = listed(other, values.iter().copied(), deny, allow);
            let mut out = vec![op(LOAD, offset_arg(arg), 0, 0), op(JUMP_EQ, value, 1, 0), allow];
            out.extend(rest);
            out
        }
    }
}

/// Load an argument; when it equals one of `values` fall into `hit`, else into `miss`.
fn listed(
    arg: u32,
    values: impl ExactSizeIterator<Item = u32>,
    hit: sock_filter,
    miss: sock_filter,
) -> Vec<sock_filter> {
    let count = values.len();
    let mut out = vec![op(LOAD, offset_arg(arg), 0, 0)];
    for (i, value) in values.enumerate() {
        // Over the comparisons left and the miss, to the hit.
        out.push(op(JUMP_EQ, value, (count - i) as u8, 0));
    }
    out.push(miss);
    out.push(hit);
    out
}

/// Assembles the filter: about a hundred and thirty instructions.
pub(crate) fn filter() -> Vec<sock_filter> {
    let mut out = vec![
        op(LOAD, OFFSET_ARCH, 0, 0),
        op(JUMP_EQ, AUDIT_ARCH, 1, 0),
        // Another architecture's calls have other numbers: none of them is known here.
        op(RETURN, errno(libc::ENOSYS), 0, 0),
        op(LOAD, OFFSET_NR, 0, 0),
        // The x32 numbers on x86-64; no call of the native tables reaches this high anywhere.
        op(JUMP_GE, 0x4000_0000, 0, 1),
        op(RETURN, errno(libc::ENOSYS), 0, 0),
    ];
    // Rules of one call together: a rule's last word is allow, so the next rule must come before it.
    let rules = rules();
    let mut done: Vec<c_long> = Vec::new();
    for Rule(nr, ..) in &rules {
        if done.contains(nr) {
            continue;
        }
        done.push(*nr);
        let mut body: Vec<sock_filter> = Vec::new();
        let mut of_call = rules.iter().filter(|rule| rule.0 == *nr).peekable();
        while let Some(Rule(_, when, code)) = of_call.next() {
            let block = judge(when, *code);
            if of_call.peek().is_some() {
                let length = block.len();
                // Allow of an earlier rule means "see the next": turn its return into a jump past the block.
                body.extend(block.into_iter().enumerate().map(|(i, ins)| {
                    if ins.code == RETURN && ins.k == ALLOW {
                        let skip = (length - i - 1) as u32;
                        op((libc::BPF_JMP | libc::BPF_JA) as u16, skip, 0, 0)
                    } else {
                        ins
                    }
                }));
            } else {
                body.extend(block);
            }
        }
        out.push(op(JUMP_EQ, *nr as u32, 0, body.len() as u8));
        out.extend(body);
    }
    out.push(op(RETURN, ALLOW, 0, 0));
    out
}

/// Puts the calling thread, and all that it becomes and forks, under the filter. No-new-privileges must be set.
pub(crate) fn install() -> std::io::Result<()> {
    crate::sys::install_filter(&filter())
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
