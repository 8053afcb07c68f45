//! What the end-to-end tests need: namespaces, processes, DPDK clients and guests. Everything made
//! here goes away with its handle, also when a test panics.

pub mod conform;
pub mod difftest;
pub mod emulator;
pub mod guest;
pub mod hugepages;
pub mod netns;
pub mod nic;
pub mod process;
pub mod testpmd;

/// Whether a test that needs this machine to itself can run: root, and not asked to keep quiet.
/// Prints the reason when not; in CI that is a failure.
pub fn can_run() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let reason = "end-to-end tests make namespaces and netdevs: they need root";
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    println!("skipped: {reason}");
    false
}
