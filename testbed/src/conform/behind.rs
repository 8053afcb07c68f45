//! The host on a representor whose rules the kernel carries out: it sees what tc lets pass.
//!
//! A packet socket has a frame before tc's ingress hook has it (net/core/dev.c:
//! __netif_receive_skb_core), so it also sees what a filter then drops, sends elsewhere or
//! rewrites. netfilter's ingress hook is next behind tc: a chain there copies each frame that is
//! still on its way up, as it is then, to a TAP that is read here. The frame itself goes on, to
//! a bridge of the host's for example.

use super::case::{Ended, Stop};
use super::endpoint::{Endpoint, Netdev, finished};
use chanio_emu::port::{RECV_BUF_LEN, Tap};
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// A table of netfilter's, in which each representor that is looked at has a chain. The kernel
/// removes a chain with its netdev, the rest goes with this.
#[derive(Debug)]
pub struct Table {
    name: String,
}

impl Table {
    /// Of this process; nothing is made yet.
    pub fn new() -> Self {
        Self {
            name: format!("conform{}", std::process::id()),
        }
    }

    /// Somebody on the netdev of this name, which must be up.
    ///
    /// # Errors
    /// A TAP cannot be made, or the kernel or this machine lacks what copies frames to it.
    pub fn host(&self, netdev: &str) -> Ended<Behind> {
        let failed = |what: &str, why: String| Stop::Error(format!("{what}: {why}"));
        let taps = Tap::create_unnamed(1).map_err(|e| failed("a TAP", e.to_string()))?;
        let copies = taps.into_iter().next();
        let copies = copies.ok_or_else(|| failed("a TAP", "none was made".into()))?;
        let tap = copies.name()?;
        // Longer frames than any channel's, and nothing that the host itself has to say.
        let words = [
            "link",
            "set",
            &tap,
            "mtu",
            "65521",
            "arp",
            "off",
            "multicast",
            "off",
            "up",
        ];
        run(Command::new("ip").args(words), "")?;
        // Whatever a chain of this name had before is of a netdev that is gone.
        let (table, hook) = (&self.name, "type filter hook ingress");
        run(
            Command::new("nft").args(["-f", "-"]),
            &format!(
                "table netdev {table} {{ chain {netdev} {{ {hook} device \"{netdev}\" priority 0; }}; }}\n\
                 flush chain netdev {table} {netdev}\n\
                 add rule netdev {table} {netdev} dup to \"{tap}\"\n"
            ),
        )?;
        Ok(Behind {
            netdev: Netdev::open(netdev)?,
            copies,
            buffer: vec![0; RECV_BUF_LEN],
        })
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let mut delete = Command::new("nft");
        delete.args(["delete", "table", "netdev", &self.name]);
        // Nobody may have looked at anything.
        let _ = delete.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Runs a program with this on its input.
fn run(command: &mut Command, input: &str) -> Ended {
    let name = command.get_program().to_string_lossy().into_owned();
    let missing = |e: io::Error| Stop::Error(format!("{name}: {e}; testbed/setup.sh installs it"));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let out = child.wait_with_output()?;
    match out.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&out.stderr);
            Err(Stop::Error(format!("{name}: {}", said.trim())))
        }
    }
}

/// The host on a representor, behind tc.
pub struct Behind {
    /// Sends.
    netdev: Netdev,
    /// What tc has let pass.
    copies: Tap,
    buffer: Vec<u8>,
}

impl Endpoint for Behind {
    fn offer(&mut self, frame: &[u8]) -> io::Result<bool> {
        self.netdev.offer(frame)
    }

    fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let len = self.copies.recv(&mut self.buffer)?;
        Ok(len.map(|len| finished(&self.buffer[..len])))
    }
}
