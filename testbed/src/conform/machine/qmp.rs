//! QEMU's monitor: NICs plugged in and taken out of a guest that runs.

use super::protocol::Plugged;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a guest may take to let go of a device.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to it.
pub struct Qmp {
    out: UnixStream,
    lines: BufReader<UnixStream>,
    /// Devices that the guest has let go of, which nobody has asked about yet.
    gone: Vec<String>,
}

impl Qmp {
    /// Connects, and learns nothing of what it offers.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let out = UnixStream::connect(path)?;
        out.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Self {
            lines: BufReader::new(out.try_clone()?),
            out,
            gone: Vec::new(),
        };
        qmp.next()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// The next that it says.
    fn next(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err(io::Error::other("QEMU has ended"));
        }
        let value: Value = serde_json::from_str(&line)?;
        if value["event"] == "DEVICE_DELETED"
            && let Some(device) = value["data"]["device"].as_str()
        {
            self.gone.push(device.to_owned());
        }
        Ok(value)
    }

    fn execute(&mut self, command: &str, arguments: Value) -> io::Result<()> {
        let text = json!({ "execute": command, "arguments": arguments }).to_string();
        self.out.write_all(text.as_bytes())?;
        loop {
            let answer = self.next()?;
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = answer.get("error") {
                let why = format!("QEMU: {command}: {}", error["desc"]);
                return Err(io::Error::other(why));
            }
        }
    }

    /// Plugs in NIC number `id`, whose device listens at `socket`.
    pub fn plug(&mut self, id: u32, socket: &Path, nic: &Plugged) -> io::Result<()> {
        let (chardev, netdev) = (format!("c{id}"), format!("n{id}"));
        let path = json!({ "path": socket.display().to_string() });
        let address = json!({ "type": "unix", "data": path });
        let backend = json!({ "addr": address, "server": false });
        let backend = json!({ "type": "socket", "data": backend });
        self.execute("chardev-add", json!({ "id": chardev, "backend": backend }))?;
        let peer = json!({
            "type": "vhost-user", "id": netdev, "chardev": chardev, "queues": nic.queues,
        });
        self.execute("netdev_add", peer)?;
        // MSI-X under emulation crashes QEMU 7.2 with vhost-user.
        let device = json!({
            "driver": "virtio-net-pci", "id": format!("d{id}"), "netdev": netdev,
            "mac": nic.mac, "mq": nic.queues > 1, "vectors": 0, "romfile": "",
        });
        self.execute("device_add", device)
    }

    /// Takes it out, once the guest has let go of it.
    pub fn unplug(&mut self, id: u32) -> io::Result<()> {
        let device = format!("d{id}");
        self.execute("device_del", json!({ "id": device }))?;
        while !self.gone.contains(&device) {
            self.next()?;
        }
        self.gone.retain(|gone| *gone != device);
        // And its character device with it.
        self.execute("netdev_del", json!({ "id": format!("n{id}") }))
    }
}
