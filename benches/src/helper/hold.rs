//! Drivers that are connected and idle.

use chanio_emu::frontend::{Client, ClientOptions};
use std::path::Path;

/// The smallest that drivers use; each keeps this many buffers in its receive ring.
const QUEUE: u16 = 64;

/// Connects one driver to each socket named in `file`, says `connected N`, and holds them until
/// its input ends.
///
/// # Errors
/// One could not be connected.
pub fn run(file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let options = ClientOptions {
        queue_size: QUEUE,
        buffer_size: 2048,
        // It polls, if anything: that takes two open files less at either end.
        calls: false,
        ..ClientOptions::default()
    };
    // A socket, shared memory, also mapped, and an eventfd each.
    chanio_emu::port::nofile_limit(4 * text.lines().count() as u64 + 100);
    let mut clients = Vec::new();
    for socket in text.lines() {
        clients.push(Client::connect(Path::new(socket), options).map_err(|e| e.to_string())?);
    }
    println!("connected {}", clients.len());
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).is_ok_and(|n| n > 0) {}
    Ok(())
}
