//! What runs in the guest: `chanio-conform --serve PORT`.

use super::protocol::{Kind, Message, Plugged, Said};
use crate::conform::endpoint::{Endpoint, Netdev};
use crate::conform::stacks::Talk;
use crate::conform::world::MARK;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long a NIC that was plugged in may take to be a netdev.
const PLUGGED: Duration = Duration::from_secs(20);
/// So long nothing comes where nothing will.
const SETTLED: Duration = Duration::from_millis(10);

/// A channel that is here.
struct End {
    netns: String,
    netdev: Netdev,
}

struct Agent {
    port: File,
    ends: BTreeMap<u32, End>,
}

/// Does what it is told on the character device `path`, until it ends.
///
/// # Errors
/// That device's.
pub fn serve(path: &Path) -> io::Result<()> {
    let port = File::options().read(true).write(true).open(path)?;
    let mut agent = Agent {
        port,
        ends: BTreeMap::new(),
    };
    Message::write(&mut agent.port, Kind::Done, 0, &[])?;
    loop {
        agent.wait(None)?;
        agent.pass_on()?;
        if agent.has_order()? {
            let order = Message::read(&mut agent.port)?;
            agent.obey(&order)?;
        }
    }
}

impl Agent {
    /// Until there is an order or a frame, and no longer than that.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let (order, frame) = (self.port.as_fd(), PollFlags::POLLIN);
        let netdevs = self.ends.values().map(|end| end.netdev.socket().as_fd());
        let fds = netdevs.chain([order]).map(|fd| PollFd::new(fd, frame));
        let timeout = timeout.map_or(PollTimeout::NONE, |time| {
            PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds.collect::<Vec<_>>(), timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn has_order(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.port.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
    }

    /// Hands over the frames of cases that have come; whether there were any.
    fn pass_on(&mut self) -> io::Result<bool> {
        let mut any = false;
        for (id, end) in &mut self.ends {
            // A device that is taken out is no more, which is nobody's fault.
            while let Ok(Some(frame)) = end.netdev.receive() {
                if frame.windows(MARK.len()).any(|part| part == MARK) {
                    any = true;
                    Message::write(&mut self.port, Kind::Frame, *id, &frame)?;
                }
            }
        }
        Ok(any)
    }

    fn obey(&mut self, order: &Message) -> io::Result<()> {
        let (kind, body) = match self.done(order) {
            Ok(answer) => answer,
            Err(error) => (Kind::Failed, error.to_string().into_bytes()),
        };
        Message::write(&mut self.port, kind, order.end, &body)
    }

    fn done(&mut self, order: &Message) -> io::Result<(Kind, Vec<u8>)> {
        let nothing = Ok((Kind::Done, Vec::new()));
        match order.kind {
            Kind::Attach => {
                let end = attach(&serde_json::from_slice(&order.body)?)?;
                self.ends.insert(order.end, end);
                nothing
            }
            Kind::Detach => {
                if let Some(end) = self.ends.remove(&order.end) {
                    drop(end.netdev);
                    let gone = run(Command::new("ip").args(["netns", "del", &end.netns]))?;
                    gone.or_error()?;
                }
                nothing
            }
            Kind::Send => {
                let end = self.ends.get_mut(&order.end);
                let end = end.ok_or_else(|| io::Error::other("no such end"))?;
                match end.netdev.offer(&order.body)? {
                    true => nothing,
                    false => Ok((Kind::Full, Vec::new())),
                }
            }
            Kind::Settle => {
                let mut since = Instant::now();
                while since.elapsed() < SETTLED {
                    std::thread::sleep(Duration::from_millis(1));
                    if self.pass_on()? {
                        since = Instant::now();
                    }
                }
                nothing
            }
            Kind::Run => {
                let (channel, words): (String, Vec<String>) = serde_json::from_slice(&order.body)?;
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &netns(&channel)]);
                let said = run(command.args(words))?;
                Ok((Kind::Done, serde_json::to_vec(&said)?))
            }
            Kind::Talk => {
                let (talk, channels): (Talk, [String; 2]) = serde_json::from_slice(&order.body)?;
                let path = |channel| PathBuf::from("/run/netns").join(netns(channel));
                let counted = talk.perform(&[path(&channels[0]), path(&channels[1])]);
                Ok((Kind::Done, serde_json::to_vec(&counted)?))
            }
            other => Err(io::Error::other(format!("{other:?} is no order"))),
        }
    }
}

/// The network namespace of a channel: its name in hex, as a channel's may be no file's.
fn netns(channel: &str) -> String {
    crate::difftest::protocol::to_hex(channel.as_bytes())
}

/// The netdev of the NIC, `eth0` in a namespace of its own.
fn attach(nic: &Plugged) -> io::Result<End> {
    let until = Instant::now() + PLUGGED;
    let name = loop {
        if let Some(name) = with_address(&nic.mac)? {
            break name;
        }
        if Instant::now() > until {
            let why = format!("no netdev with the address {} has come", nic.mac);
            return Err(io::Error::other(why));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let netns = netns(&nic.channel);
    let (mtu, queues) = (nic.mtu, nic.queues);
    // What is merged on its way up is not what came.
    let script = format!(
        "ip netns add {netns}
         ip link set {name} netns {netns} name eth0
         exec ip netns exec {netns} sh -e -c '
             ip link set lo up
             for c in default all; do echo 1 > /proc/sys/net/ipv6/conf/$c/disable_ipv6; done
             [ {queues} = 1 ] || ethtool -L eth0 combined {queues} > /dev/null
             ethtool -K eth0 gro off > /dev/null 2>&1 || true
             ip link set eth0 mtu {mtu} up'"
    );
    run(Command::new("sh").args(["-e", "-c", &script]))?.or_error()?;
    let netdev = Netdev::open_inside(&Path::new("/run/netns").join(&netns), "eth0")?;
    Ok(End { netns, netdev })
}

/// The netdev of this namespace that has this address.
fn with_address(mac: &str) -> io::Result<Option<String>> {
    for entry in std::fs::read_dir("/sys/class/net")? {
        let entry = entry?;
        // One that goes has no address any more.
        let address = std::fs::read_to_string(entry.path().join("address"));
        if address.is_ok_and(|address| address.trim().eq_ignore_ascii_case(mac)) {
            return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

fn run(command: &mut Command) -> io::Result<Said> {
    let out = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said {
        good: out.status.success(),
        out: text(&out.stdout),
        err: text(&out.stderr),
    })
}

impl Said {
    /// # Errors
    /// What it said, unless it ended well.
    fn or_error(&self) -> io::Result<()> {
        match self.good {
            true => Ok(()),
            false => Err(io::Error::other(self.err.trim().to_owned())),
        }
    }
}
