//! The backends that are compared: each forwards between vhost-user sockets with one thread on
//! [`BACKEND_CPU`](crate::machine::BACKEND_CPU).

pub mod chanio;
pub mod ovs;
pub mod testpmd;

use crate::bed::Bed;
use chanio_testbed::process::Process;
use chanio_testbed::testpmd::Testpmd;
use std::path::{Path, PathBuf};
use vhost::VhostBackend;
use vhost::vhost_user::Frontend;

/// VIRTIO_F_RING_PACKED (virtio 1.3 §6).
pub const RING_PACKED: u64 = 1 << 34;

/// A backend that runs and listens.
pub struct Backend {
    /// Its programs; the first forwards.
    pub programs: Vec<Program>,
    /// Its ports, in their order.
    pub sockets: Vec<PathBuf>,
}

/// Starts a backend with a number of ports.
pub type Start = fn(&Bed, usize) -> std::io::Result<Backend>;

/// Those that switch by address, chanio first, and one that only copies, as the measure of what
/// can be had.
pub const SWITCHES: [(&str, Start); 3] = [
    ("chanio", |bed, ports| {
        chanio::start(bed, ports, &chanio::Switch::Addresses)
    }),
    ("OVS-DPDK NORMAL", ovs::normal),
    ("testpmd io", testpmd::start),
];

/// A program of a backend.
pub enum Program {
    /// Any.
    Process(Process),
    /// With a prompt.
    Testpmd(Testpmd),
}

impl Backend {
    /// The process that forwards.
    pub fn pid(&self) -> u32 {
        match &self.programs[0] {
            Program::Process(process) => process.pid(),
            Program::Testpmd(testpmd) => testpmd.pid(),
        }
    }
}

/// The address of the client's port `index`.
pub fn mac(index: usize) -> String {
    format!("02:00:00:00:{:02x}:{:02x}", 1 + index / 256, index % 256)
}

/// The virtio features that the device at `socket` offers.
///
/// # Errors
/// It cannot be asked.
pub fn offered_features(socket: &Path) -> Result<u64, String> {
    let ask = || -> Result<u64, vhost::Error> {
        let frontend = Frontend::connect(socket, 1)?;
        frontend.set_owner()?;
        frontend.get_features()
    };
    ask().map_err(|e| format!("{}: {e}", socket.display()))
}
