//! The program that gives a netdev's frames to our sockets, loaded and attached by bpf(2) (kernel:
//! include/uapi/linux/bpf.h): all unsafe code of that.

use nix::errno::Errno;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;

const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
/// `attach_type` of a program for a netdev.
const BPF_XDP: u32 = 37;
/// In `src_reg` of a 64-bit constant: the descriptor of a map.
const BPF_PSEUDO_MAP_FD: u8 = 1;
const BPF_FUNC_REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;
/// Offset of `rx_queue_index` in `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;

/// `XDP_FLAGS_SKB_MODE` (include/uapi/linux/if_link.h): before the stack, for any netdev.
const SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`: in the driver, before there is an skb.
const DRIVER_MODE: u32 = 1 << 2;

/// Where the netdev runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In its driver.
    Driver,
    /// In the stack, on frames that are copied there.
    Generic,
}

/// One instruction of eBPF (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    /// Destination below, source above.
    registers: u8,
    off: i16,
    imm: i32,
}

const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    let registers = dst | src << 4;
    Insn {
        code,
        registers,
        off,
        imm,
    }
}

/// Gives a frame to the socket of its queue, or to the stack where there is none:
/// `return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS)`.
fn program(sockets: BorrowedFd<'_>) -> [Insn; 6] {
    const LOAD_32: u8 = 0x61;
    const CONSTANT_64: u8 = 0x18;
    const MOVE_64: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    [
        insn(LOAD_32, 2, 1, RX_QUEUE_INDEX, 0),
        insn(CONSTANT_64, 1, BPF_PSEUDO_MAP_FD, 0, sockets.as_raw_fd()),
        insn(0, 0, 0, 0, 0),
        insn(MOVE_64, 3, 0, 0, XDP_PASS),
        insn(CALL, 0, 0, 0, BPF_FUNC_REDIRECT_MAP),
        insn(EXIT, 0, 0, 0, 0),
    ]
}

/// The members of `union bpf_attr`, as far as they are used here; all of it is 0 otherwise.
#[repr(C, align(8))]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct MapUpdate {
    map_fd: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C, align(8))]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u64; 2],
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C, align(8))]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Calls bpf(2).
///
/// # Safety
/// `T` is the front of `union bpf_attr` for this command, and every address in it is valid for what
/// the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &T) -> Result<libc::c_long, Errno> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes at the pointer, and takes the rest of the
    // union as 0; what the addresses inside are good for is the caller's promise.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const *attr,
            mem::size_of::<T>(),
        )
    };
    Errno::result(done)
}

/// The descriptor that a command has returned.
///
/// # Safety
/// As [`bpf`]; the command is one that returns a new descriptor.
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just opened it for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

fn address<T: ?Sized>(of: &T) -> u64 {
    (&raw const *of).cast::<u8>().addr() as u64
}

/// A table of sockets, by receive queue.
pub(super) fn sockets(queues: u32) -> Result<OwnedFd, Errno> {
    let attr = MapCreate {
        map_type: BPF_MAP_TYPE_XSKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: queues,
    };
    // SAFETY: there is no address in it; the command returns a map.
    unsafe { bpf_fd(BPF_MAP_CREATE, &attr) }
}

/// Puts a queue's socket into the table.
pub(super) fn set_socket(
    sockets: BorrowedFd<'_>,
    queue: u32,
    socket: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let value = socket.as_raw_fd().cast_unsigned();
    let attr = MapUpdate {
        map_fd: sockets.as_raw_fd().cast_unsigned(),
        key: address(&queue),
        value: address(&value),
        ..MapUpdate::default()
    };
    // SAFETY: the kernel reads 4 bytes at each of the two addresses, as `sockets` says, which are
    // those of `queue` and `value` on this stack frame.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attr) }.map(drop)
}

/// Loads the program that uses this table.
pub(super) fn load(sockets: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let insns = program(sockets);
    let license = c"MIT OR Apache-2.0";
    let mut prog_name = [0; 16];
    prog_name[..6].copy_from_slice(b"chanio");
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: insns.len() as u32,
        insns: address(&insns),
        license: address(license),
        prog_name,
        expected_attach_type: BPF_XDP,
        ..ProgLoad::default()
    };
    // SAFETY: the kernel reads `insn_cnt` instructions at `insns` and a string at `license`; both
    // outlive the call. `log` is 0, so it writes nothing. The command returns a program.
    unsafe { bpf_fd(BPF_PROG_LOAD, &attr) }
}

/// Has the netdev run the program until the result is closed.
pub(super) fn attach(program: BorrowedFd<'_>, ifindex: u32, mode: Mode) -> Result<OwnedFd, Errno> {
    let attr = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: match mode {
            Mode::Driver => DRIVER_MODE,
            Mode::Generic => SKB_MODE,
        },
    };
    // SAFETY: there is no address in it; the command returns a link.
    unsafe { bpf_fd(BPF_LINK_CREATE, &attr) }
}
