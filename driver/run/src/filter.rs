//! The seccomp filter: which of the program's system calls come here.

use libc::{c_long, sock_filter};

/// Played sockets have numbers from here on, and so do no other files unless a program has very
/// many: those are told apart by asking, and left to the kernel.
pub const FIRST_FD: u32 = 896;
/// Files of the emulator's that are opened to be written have numbers from here on.
pub const FIRST_FILE: u32 = 992;
/// And end before this, below the usual limit on open files.
pub const END_FD: u32 = 1024;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// x32's system calls are those of x86-64 with this bit; they are refused with the other foreign
/// ones.
const X32: u32 = 0x4000_0000;

/// Calls that work on a file of the number in their first argument.
pub const ON_A_FILE: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_dup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    libc::SYS_dup3,
    libc::SYS_fcntl,
];

/// Calls that write to one: of the first three numbers, too, where shells put files.
pub const WRITES: &[c_long] = &[libc::SYS_write, libc::SYS_writev];

/// Calls that name a file.
const ON_A_PATH: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
];

/// Files of the first numbers are looked at when they are written to.
const FIRST_LEFT_ALONE: u32 = 3;

/// linux/sockios.h
pub const SIOCETHTOOL: u32 = 0x8946;

// Offsets in struct seccomp_data (linux/seccomp.h). An argument's lower half comes first on
// little-endian machines, which both are.
const NR: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn step(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Goes on so many steps further where true, with the next where not.
const fn branch(code: u16, k: u32, further: usize) -> sock_filter {
    sock_filter {
        code,
        jt: further as u8,
        jf: 0,
        k,
    }
}

/// Where a call's branch leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Socket,
    File,
    Write,
    Ioctl,
    Notify,
}

/// The program that the kernel runs at every system call. With `files`, calls that name files and
/// ethtool's ioctl come here as well.
pub fn program(files: bool) -> Vec<sock_filter> {
    let mut calls = vec![(libc::SYS_socket, To::Socket)];
    calls.extend(ON_A_FILE.iter().map(|call| (*call, To::File)));
    let writes = if files { To::Write } else { To::File };
    calls.extend(WRITES.iter().map(|call| (*call, writes)));
    if files {
        calls.push((libc::SYS_ioctl, To::Ioctl));
        calls.extend(ON_A_PATH.iter().map(|call| (*call, To::Notify)));
    }
    // Behind the calls' branches, by their place there.
    let tail = [
        step(RETURN, libc::SECCOMP_RET_ALLOW),
        // 1: sockets
        step(LOAD, FIRST_ARGUMENT),
        branch(IF_EQUAL, libc::AF_NETLINK as u32, 11),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
        // 4: files
        step(LOAD, FIRST_ARGUMENT),
        branch(IF_AT_LEAST, FIRST_FD, 8),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
        // 7: writes
        step(LOAD, FIRST_ARGUMENT),
        branch(IF_AT_LEAST, FIRST_FD, 5),
        branch(IF_AT_LEAST, FIRST_LEFT_ALONE, 3),
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF),
        // 11: ioctls
        step(LOAD, SECOND_ARGUMENT),
        branch(IF_EQUAL, SIOCETHTOOL, 1),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
        // 14
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF),
        // 15
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let place = |to: To| match to {
        To::Socket => 1,
        To::File => 4,
        To::Write => 7,
        To::Ioctl => 11,
        To::Notify => 14,
    };
    const KILL: usize = 15;
    let mut program = vec![
        step(LOAD, ARCHITECTURE),
        branch(IF_EQUAL, ARCH, 1),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, NR),
        branch(IF_AT_LEAST, X32, calls.len() + KILL),
    ];
    for (i, (call, to)) in calls.iter().enumerate() {
        let further = calls.len() - 1 - i + place(*to);
        program.push(branch(IF_EQUAL, *call as u32, further));
    }
    program.extend(tail);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn verdict(nr: c_long, arch: u32, first: u64) -> u32 {
        verdict_of(&program(false), nr, arch, [first, 0])
    }

    fn verdict_of(program: &[sock_filter], nr: c_long, arch: u32, args: [u64; 2]) -> u32 {
        let mut data = [0u8; 64];
        data[..4].copy_from_slice(&(nr as u32).to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        data[16..24].copy_from_slice(&args[0].to_ne_bytes());
        data[24..32].copy_from_slice(&args[1].to_ne_bytes());
        let (mut at, mut acc) = (0, 0u32);
        loop {
            let step = program[at];
            at += 1;
            let k = step.k as usize;
            match step.code {
                LOAD => acc = u32::from_ne_bytes(data[k..k + 4].try_into().unwrap()),
                IF_EQUAL if acc == step.k => at += usize::from(step.jt),
                IF_AT_LEAST if acc >= step.k => at += usize::from(step.jt),
                IF_EQUAL | IF_AT_LEAST => at += usize::from(step.jf),
                RETURN => return step.k,
                other => panic!("step {other:#x}"),
            }
        }
    }

    #[test]
    fn only_netlink_sockets_and_high_files_come_here() {
        let netlink = libc::AF_NETLINK as u64;
        assert_eq!(
            verdict(libc::SYS_socket, ARCH, netlink),
            libc::SECCOMP_RET_USER_NOTIF
        );
        assert_eq!(verdict(libc::SYS_socket, ARCH, 2), libc::SECCOMP_RET_ALLOW);
        assert_eq!(
            verdict(libc::SYS_openat, ARCH, netlink),
            libc::SECCOMP_RET_ALLOW
        );
        for call in ON_A_FILE.iter().chain(WRITES) {
            let of = |fd: u32| verdict(*call, ARCH, fd.into());
            assert_eq!(of(FIRST_FD), libc::SECCOMP_RET_USER_NOTIF);
            assert_eq!(of(END_FD - 1), libc::SECCOMP_RET_USER_NOTIF);
            assert_eq!(of(FIRST_FD - 1), libc::SECCOMP_RET_ALLOW);
            assert_eq!(of(3), libc::SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn files_and_ethtool_come_here_only_where_they_are_played() {
        let with = program(true);
        let verdict = |nr, first, second| verdict_of(&with, nr, ARCH, [first, second]);
        for call in ON_A_PATH {
            assert_eq!(verdict(*call, 0, 0), libc::SECCOMP_RET_USER_NOTIF);
            assert_eq!(
                verdict_of(&program(false), *call, ARCH, [0, 0]),
                libc::SECCOMP_RET_ALLOW
            );
        }
        for call in WRITES {
            assert_eq!(verdict(*call, 1, 0), libc::SECCOMP_RET_USER_NOTIF);
            assert_eq!(verdict(*call, 3, 0), libc::SECCOMP_RET_ALLOW);
            assert_eq!(
                verdict(*call, FIRST_FILE.into(), 0),
                libc::SECCOMP_RET_USER_NOTIF
            );
        }
        let ethtool = u64::from(SIOCETHTOOL);
        assert_eq!(
            verdict(libc::SYS_ioctl, 3, ethtool),
            libc::SECCOMP_RET_USER_NOTIF
        );
        assert_eq!(verdict(libc::SYS_ioctl, 3, 0x5401), libc::SECCOMP_RET_ALLOW);
        assert_eq!(verdict(libc::SYS_read, 1, 0), libc::SECCOMP_RET_ALLOW);
        assert_eq!(
            verdict(libc::SYS_read, 900, 0),
            libc::SECCOMP_RET_USER_NOTIF
        );
        let x32 = libc::SYS_openat | c_long::from(X32);
        assert_eq!(verdict(x32, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn foreign_calls_end_the_program() {
        assert_eq!(
            verdict(libc::SYS_socket, 3, 16),
            libc::SECCOMP_RET_KILL_PROCESS
        );
        let x32 = libc::SYS_socket | c_long::from(X32);
        assert_eq!(verdict(x32, ARCH, 16), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(
            verdict(libc::SYS_read, 3, 0),
            libc::SECCOMP_RET_KILL_PROCESS
        );
    }
}
