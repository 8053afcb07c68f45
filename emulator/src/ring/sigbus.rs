//! Surviving a client that truncates its memory file.
//!
//! Touching a shared mapping beyond the end of its file raises SIGBUS, and a client can shorten
//! its file whenever it likes. The handler here looks the address up among the registered guest
//! mappings, replaces that whole mapping by zero pages and sets its poison flag; the interrupted
//! access is repeated, finds zeros, and the ring notices the flag at its next burst. Any other
//! SIGBUS goes to whoever handled it before.
//!
//! The whole mapping, not just the page: one page each would cut the mapping in pieces, two more
//! entries of vm.max_map_count per fault, and one client could use up everybody's. It also makes
//! the size of the file's pages irrelevant. The client's memory was lost to it anyway.
//!
//! System calls that are handed guest addresses do not raise SIGBUS; they fail with EFAULT.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};

use nix::errno::Errno;
use parking_lot::Mutex;

/// Most guest mappings in this process. The kernel's default for all mappings is 65530
/// (vm.max_map_count); libraries, stacks, heaps and TAP buffers need some too.
pub const MAX_MAPPINGS: usize = 60_000;

/// One registered mapping, read by the handler while others are added and removed: a sequence
/// lock. Odd while being changed.
struct Slot {
    sequence: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    poisoned: AtomicPtr<AtomicBool>,
}

impl Slot {
    const fn empty() -> Slot {
        Slot {
            sequence: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            poisoned: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    fn store(&self, start: usize, len: usize, poisoned: *mut AtomicBool) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.poisoned.store(poisoned, Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The slot's contents, unless it is empty or being changed.
    fn load(&self) -> Option<(usize, usize, NonNull<AtomicBool>)> {
        let before = self.sequence.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let poisoned = self.poisoned.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let stable = before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before;
        Some((start, len, NonNull::new(poisoned).filter(|_| stable)?))
    }
}

/// Zero-initialised, so untouched slots cost no memory.
static SLOTS: [Slot; MAX_MAPPINGS] = [const { Slot::empty() }; MAX_MAPPINGS];
/// Slots ever used: where the handler stops looking.
static HIGH_WATER: AtomicUsize = AtomicUsize::new(0);
/// Slots below the high-water mark that are free again. Never touched by the handler.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Keeps one mapping in the handler's sight.
#[derive(Debug)]
pub(super) struct Registration {
    slot: usize,
    _poisoned: Arc<AtomicBool>,
}

/// Makes SIGBUS in `start..start + len` set `poisoned` and find zeros. `None` if there are
/// [`MAX_MAPPINGS`] already.
///
/// The range must be one mapping of the caller's own, and stay mapped until the registration is
/// dropped.
pub(super) fn register(
    start: NonNull<u8>,
    len: usize,
    poisoned: &Arc<AtomicBool>,
) -> Option<Registration> {
    let mut free = FREE.lock();
    let slot = match free.pop() {
        Some(slot) => slot,
        None => {
            let slot = HIGH_WATER.load(Ordering::Relaxed);
            if slot == MAX_MAPPINGS {
                return None;
            }
            HIGH_WATER.store(slot + 1, Ordering::Release);
            slot
        }
    };
    SLOTS[slot].store(start.addr().get(), len, Arc::as_ptr(poisoned).cast_mut());
    Some(Registration {
        slot,
        _poisoned: Arc::clone(poisoned),
    })
}

impl Drop for Registration {
    fn drop(&mut self) {
        SLOTS[self.slot].store(0, 0, std::ptr::null_mut());
        FREE.lock().push(self.slot);
    }
}

/// What handled SIGBUS before; written once, before the handler can run.
struct Previous(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written only by `install` under its lock before the handler is in place, read only by
// the handler.
unsafe impl Sync for Previous {}
static PREVIOUS: Previous = Previous(UnsafeCell::new(MaybeUninit::uninit()));

/// Installs the handler, once per process; later calls do nothing. Mapping guest memory does it.
///
/// # Errors
/// What sigaction(2) answers.
pub fn install() -> Result<(), Errno> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock();
    if *installed {
        return Ok(());
    }
    // SAFETY: all-zero is a valid sigaction; the old action is read into owned memory before the
    // new one takes effect, and the handler does only what is safe in a signal handler.
    unsafe {
        let previous = (*PREVIOUS.0.get()).as_mut_ptr();
        Errno::result(libc::sigaction(libc::SIGBUS, std::ptr::null(), previous))?;
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigbus as *const () as usize;
        // On the alternate stack, which the standard library gives each thread: the handler
        // installed before expects it.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        Errno::result(libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()))?;
    }
    *installed = true;
    Ok(())
}

/// Async-signal-safe: atomics, one mmap and sigaction.
extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands an SA_SIGINFO handler valid arguments. errno belongs to this thread
    // and is put back for the code that was interrupted.
    unsafe {
        let errno = *libc::__errno_location();
        // Codes above 0 come from the kernel: an address is attached only to those.
        let handled = (*info).si_code > 0 && replace((*info).si_addr().addr());
        *libc::__errno_location() = errno;
        if !handled {
            pass_on(signal, info, context);
        }
    }
}

/// Replaces the registered mapping around `address`; false if there is none.
fn replace(address: usize) -> bool {
    // The thread that faulted is inside an access to its mapping and so keeps it alive and
    // registered: that slot is stable and was filled before this thread could learn the address.
    // Slots that are changing belong to other mappings, and are skipped.
    let slots = &SLOTS[..HIGH_WATER.load(Ordering::Acquire).min(MAX_MAPPINGS)];
    let mut found = slots.iter().filter_map(Slot::load);
    let Some((start, len, poisoned)) =
        found.find(|&(start, len, _)| address.wrapping_sub(start) < len)
    else {
        return false;
    };
    // SAFETY: the flag lives as long as its registration, see above.
    unsafe { poisoned.as_ref() }.store(true, Ordering::Relaxed);
    // SAFETY: exactly the range of a mapping that this module's caller owns and has not unmapped
    // (see above), so nothing else is replaced. Concurrent accesses find either the old or the new
    // pages. Whoever unmaps it unmaps the replacement alike.
    let mapped = unsafe {
        libc::mmap(
            std::ptr::without_provenance_mut(start),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    mapped != libc::MAP_FAILED
}

/// Does what would have been done without us.
///
/// # Safety
/// Only in a SIGBUS handler, with its arguments, after [`install`].
unsafe fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `install` filled this before the handler was in place; never written again. The
    // handler's address has the type that its flags say.
    unsafe {
        let previous = (*PREVIOUS.0.get()).assume_init_ref();
        match previous.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => {
                // Ignoring it would only repeat the access. With the default restored, the
                // repeated access (or the signal, if it was sent) ends the process.
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(libc::SIGBUS, &default, std::ptr::null_mut());
                libc::raise(signal);
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
            handler => {
                let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use crate::ring::driver::SharedArea;

    #[test]
    fn a_truncated_client_reads_zeros_and_is_marked() {
        let area = SharedArea::new(0, 16 << 12).unwrap();
        let other = SharedArea::new(0, 1 << 12).unwrap();
        let mem = area.memory();
        mem.write(0, b"kept until the first fault").unwrap();
        area.file().set_len(1 << 12).unwrap();
        assert!(!mem.poisoned());
        let mut got = [1; 8];
        mem.read(8 << 12, &mut got).unwrap();
        assert_eq!(got, [0; 8]);
        assert!(mem.poisoned());
        assert!(!other.memory().poisoned());
        // The rest is zero pages too now, and writable, and unmaps like before.
        mem.write(15 << 12, b"nowhere").unwrap();
        other.memory().write(0, b"fine").unwrap();
    }

    #[test]
    fn many_threads_fault_in_many_mappings() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let area = SharedArea::new(0, 4 << 12).unwrap();
                        area.file().set_len(0).unwrap();
                        area.memory().write(2 << 12, &[7; 4096]).unwrap();
                        assert!(area.memory().poisoned());
                    }
                });
            }
        });
    }

    #[test]
    fn slots_are_used_again() {
        use std::sync::atomic::Ordering;
        for _ in 0..10 {
            drop(
                (0..20)
                    .map(|_| SharedArea::new(0, 4096).unwrap())
                    .collect::<Vec<_>>(),
            );
        }
        // Other tests in this process hold some as well.
        assert!(super::HIGH_WATER.load(Ordering::Relaxed) < 150);
    }

    /// Everybody else's SIGBUS still kills: run in a child, which maps a file itself, truncates it
    /// and reads.
    #[test]
    fn foreign_faults_still_kill() {
        const ASK: &str = "CHANIO_TEST_FOREIGN_SIGBUS";
        if std::env::var_os(ASK).is_some() {
            let _area = SharedArea::new(0, 4096).unwrap();
            let file = tempfile::tempfile().unwrap();
            file.set_len(8192).unwrap();
            // SAFETY: a new private mapping; reading past the file's end is meant to be fatal.
            unsafe {
                use std::os::fd::AsRawFd;
                let map = libc::mmap(
                    std::ptr::null_mut(),
                    8192,
                    libc::PROT_READ,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                );
                file.set_len(0).unwrap();
                map.cast::<u8>().add(4096).read_volatile();
            }
            return;
        }
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ring::sigbus::tests::foreign_faults_still_kill"])
            .env(ASK, "1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(libc::SIGBUS));
    }
}
