//! The only program of the guest: it makes the ports and does what each order says.
//!
//! A port is a TAP, to tc a netdev like any other. What is written to it the netdev receives,
//! offload header and all; whatever a rule sends out of it can be read back whole, tags included.
//! By the time a write is over, the kernel has done everything with the frame. What no rule takes
//! away goes on up the stack, where netfilter's hook behind tc hands it to the port's representor,
//! another TAP.

use super::protocol::{Got, Order, Report, from_hex, to_hex};
use super::tc_shell::TcShell;
use chanio_emu::port::{IfName, RECV_BUF_LEN, Tap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Why the agent gives up.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Something the system refused.
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    /// A netdev could not be made.
    #[error("{0}")]
    Netdev(String),
    /// A program that sets things up failed.
    #[error("`{0}` failed")]
    Program(String),
    /// What came is not an order.
    #[error("order: {0}")]
    Order(String),
}

/// Serve orders that come on the character device `path`, with `ports` ports, until it ends.
pub fn run(path: &str, ports: usize) -> Result<(), AgentError> {
    let io = |what| move |err| AgentError::Io(what, err);
    let (mut agent, channel) = (
        Agent::new(ports)?,
        File::options().read(true).write(true).open(path),
    );
    let channel = channel.map_err(io("the port to the host"))?;
    let mut answers = channel.try_clone().map_err(io("the port to the host"))?;
    println!("agent: ready");
    for line in BufReader::new(channel).lines() {
        let line = line.map_err(io("reading an order"))?;
        let order = serde_json::from_str(&line).map_err(|e| AgentError::Order(e.to_string()))?;
        let report = agent.obey(&order)?;
        let mut text =
            serde_json::to_string(&report).map_err(|e| AgentError::Order(e.to_string()))?;
        text.push('\n');
        answers
            .write_all(text.as_bytes())
            .map_err(io("writing a report"))?;
    }
    Ok(())
}

/// How often a look is taken at what became of a frame that may be put aside.
const ASIDE: usize = 15;

struct Agent {
    ports: Vec<Tap>,
    representors: Vec<Tap>,
    tc: TcShell,
    buffer: Vec<u8>,
}

impl Agent {
    fn new(ports: usize) -> Result<Self, AgentError> {
        let taps = |letter: &str| -> Result<Vec<Tap>, AgentError> {
            (0..ports).map(|n| tap(&format!("{letter}{n}"))).collect()
        };
        let (ports, representors) = (taps("p")?, taps("r")?);
        shell(&hand_up(ports.len()))?;
        let tc = TcShell::start().map_err(|e| AgentError::Io("tc", e))?;
        Ok(Self {
            ports,
            representors,
            tc,
            buffer: vec![0; RECV_BUF_LEN],
        })
    }

    fn obey(&mut self, order: &Order) -> Result<Report, AgentError> {
        let broken = |e| AgentError::Io("tc", e);
        let (_, mut refused) = self.tc.run(&order.setup).map_err(broken)?;
        let mut frames = Vec::with_capacity(order.frames.len());
        for sent in &order.frames {
            let bytes = from_hex(&sent.hex).ok_or_else(|| AgentError::Order(sent.hex.clone()))?;
            let port = self.ports.get(sent.port);
            let port = port.ok_or_else(|| AgentError::Order(format!("no port {}", sent.port)))?;
            if let Err(err) = port.send(&[IoSlice::new(&bytes)]) {
                refused.push_str(&format!("frame: {err}\n"));
            }
            let mut got = Vec::new();
            for _ in 0..if sent.put_aside { ASIDE } else { 0 } {
                // That thread runs when nobody else does.
                std::thread::sleep(Duration::from_millis(2));
                got = self.collect()?;
                if !got.is_empty() {
                    break;
                }
            }
            got.extend(self.collect()?);
            frames.push(got);
        }
        let (shown, more) = self.tc.run(&order.show).map_err(broken)?;
        refused.push_str(&more);
        let (_, more) = self.tc.run(&order.cleanup).map_err(broken)?;
        refused.push_str(&more);
        Ok(Report {
            refused,
            frames,
            shown,
        })
    }

    /// Everything that the netdevs have sent since.
    fn collect(&mut self) -> Result<Vec<Got>, AgentError> {
        let mut got = Vec::new();
        for (letter, taps) in [("p", &self.ports), ("r", &self.representors)] {
            for (n, tap) in taps.iter().enumerate() {
                let unread = |e| AgentError::Io("reading a netdev", e);
                while let Some(len) = tap.recv(&mut self.buffer).map_err(unread)? {
                    got.push(Got {
                        netdev: format!("{letter}{n}"),
                        hex: to_hex(&self.buffer[..len]),
                    });
                }
            }
        }
        Ok(got)
    }
}

/// A netdev that is up, sends nothing of its own, and whose frames come out finished.
fn tap(name: &str) -> Result<Tap, AgentError> {
    let if_name: IfName = name
        .parse()
        .map_err(|e| AgentError::Netdev(format!("{name}: {e}")))?;
    let tap = Tap::create(&if_name).map_err(|e| AgentError::Netdev(e.to_string()))?;
    shell(&format!(
        "ip link set {name} mtu 9000 arp off multicast off up
         ethtool -K {name} tx off tso off gso off gro off > /dev/null"
    ))?;
    Ok(tap)
}

/// What no rule takes away goes to the representor.
fn hand_up(ports: usize) -> String {
    let chains: String = (0..ports)
        .map(|n| {
            format!(
                "chain p{n} {{ type filter hook ingress device p{n} priority 0; fwd to r{n}; }}\n"
            )
        })
        .collect();
    let clsact: String = (0..ports)
        .map(|n| format!("tc qdisc add dev p{n} ingress_block 1 clsact\n"))
        .collect();
    format!("{clsact}nft -f - <<'END'\ntable netdev up {{\n{chains}}}\nEND\n")
}

fn shell(script: &str) -> Result<(), AgentError> {
    let failed = |e| AgentError::Io("sh", e);
    let mut child = Command::new("sh")
        .arg("-e")
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(script.as_bytes()).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        Ok(())
    } else {
        Err(AgentError::Program(script.to_owned()))
    }
}
