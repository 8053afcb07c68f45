//! The client of the throughput cases: testpmd with virtio-user ports, on
//! [`CLIENT_CPU`].

use crate::backend::{Backend, RING_PACKED, mac, offered_features};
use crate::bed::Bed;
use crate::machine::CLIENT_CPU;
use crate::rig::{Rig, Trouble};
use chanio_testbed::testpmd::{Launch, Testpmd};
use std::path::PathBuf;
use std::time::Duration;

/// Frames of which lengths go round, bytes without FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// All the same.
    Of(u32),
    /// 7 of 64, 4 of 570, 1 of 1500, in runs of 14, 8 and 2.
    Imix,
    /// One of 64 in each direction, of which the time is measured, not the rate.
    Single,
}

impl Frames {
    /// How many go round in each direction.
    pub fn in_flight(self) -> u32 {
        match self {
            Self::Of(_) => IN_FLIGHT,
            Self::Imix => 24 * IMIX_ROUNDS,
            Self::Single => 1,
        }
    }
}

/// Entries of each ring.
const QUEUE: u32 = 1024;
/// Frames that testpmd handles at a time.
const BURST: u64 = 32;
/// Frames of one length in flight in each direction: never more than a ring holds, so none is
/// lost.
const IN_FLIGHT: u32 = 256;
/// Rounds of 14, 8 and 2.
const IMIX_ROUNDS: u32 = 10;

/// A client whose ports are connected.
pub fn connect(
    bed: &Bed,
    sockets: &[PathBuf],
    packed: bool,
    eal: &[String],
) -> std::io::Result<Testpmd> {
    let dir = bed.run_dir()?;
    let mut all = vec![
        "--in-memory".to_owned(),
        "--single-file-segments".to_owned(),
    ];
    for (n, socket) in sockets.iter().enumerate() {
        all.push(format!(
            "--vdev=net_virtio_user{n},path={},queues=1,queue_size={QUEUE},mac={}{}",
            socket.display(),
            mac(n),
            if packed { ",packed_vq=1" } else { "" }
        ));
    }
    all.extend_from_slice(eal);
    let mut arguments = vec![
        "--no-mlockall".to_owned(),
        "--no-lsc-interrupt".to_owned(),
        // What is in the rings stays there when forwarding starts again.
        "--no-flush-rx".to_owned(),
        // What the receive rings hold, what is in flight, and what a file source keeps.
        format!("--total-num-mbufs={}", 28_672 + 2048 * sockets.len()),
        format!("--rxd={QUEUE}"),
        format!("--txd={QUEUE}"),
    ];
    for n in 0..sockets.len() {
        arguments.push(format!("--eth-peer={n},{}", mac(n ^ 1)));
    }
    Ok(Testpmd::launch(Launch {
        name: "client",
        dir: &dir,
        cpu: CLIENT_CPU,
        memory: 256,
        eal: all,
        arguments,
        wrapper: bed.wrapper(&[CLIENT_CPU]),
    }))
}

/// Frames that go round: port 0, backend, port 1, port 0, and the other way. What goes round is
/// never more than the rings hold, so the rate is one without loss.
pub struct Loop {
    client: Testpmd,
    backend: Backend,
    in_flight: u64,
    frames: Frames,
}

impl Loop {
    /// Puts the frames on their way between the ports of `backend`, two and two.
    ///
    /// # Errors
    /// The device has no packed rings; a run could not be made.
    pub fn start(
        bed: &Bed,
        backend: Backend,
        frames: Frames,
        packed: bool,
    ) -> Result<Self, Trouble> {
        if packed
            && offered_features(&backend.sockets[0]).map_err(Trouble::Failed)? & RING_PACKED == 0
        {
            return Err(Trouble::Unsupported(
                "not supported by this build: the device does not offer packed rings \
                 (VIRTIO_F_RING_PACKED)"
                    .into(),
            ));
        }
        let mut client = connect(bed, &backend.sockets, packed, &[])?;
        let ports = backend.sockets.len() as u64;
        until_ready(&mut client)?;
        client.command(&script(frames));
        Ok(Self {
            client,
            backend,
            in_flight: ports * u64::from(frames.in_flight()),
            frames,
        })
    }

    fn received(&mut self) -> u64 {
        self.client.stats().iter().map(|port| port.rx).sum()
    }
}

/// Sends a burst on each port until all of it arrives at the ports' partners: a backend may take
/// its time with a new client. It also shows the switch where the addresses are.
fn until_ready(client: &mut Testpmd) -> Result<(), Trouble> {
    client.command("set fwd rxonly\nset txpkts 64");
    for _ in 0..50 {
        let before = client.stats();
        client.command("start tx_first 1");
        std::thread::sleep(Duration::from_millis(100));
        client.command("stop");
        let after = client.stats();
        if before.iter().zip(&after).all(|(b, a)| a.rx - b.rx == BURST) {
            return Ok(());
        }
    }
    Err(Trouble::Failed("the backend forwards nothing".into()))
}

/// What brings the frames on their way.
fn script(frames: Frames) -> String {
    let mut lines = vec!["set fwd io".to_owned()];
    match frames {
        Frames::Of(bytes) => {
            lines.push(format!("set txpkts {bytes}"));
            lines.push(format!("start tx_first {}", u64::from(IN_FLIGHT) / BURST));
        }
        Frames::Imix => {
            for (count, bytes) in [(14, 64), (8, 570), (2, 1500)].repeat(IMIX_ROUNDS as usize) {
                lines.push(format!("set burst {count}\nset txpkts {bytes}"));
                lines.push("start tx_first 1\nstop".to_owned());
            }
            lines.push(format!("set burst {BURST}\nstart"));
        }
        Frames::Single => {
            lines.push("set burst 1\nset txpkts 64\nstart tx_first 1".to_owned());
        }
    }
    lines.join("\n")
}

impl Rig for Loop {
    fn processes(&self) -> Vec<u32> {
        vec![self.backend.pid(), self.client.pid()]
    }

    /// Millions of frames in a second, all ports together, or the mean time of a pass, us.
    fn window(&mut self, time: Duration) -> Result<Vec<f64>, Trouble> {
        self.client.stats();
        std::thread::sleep(time);
        let rate: u64 = self.client.stats().iter().map(|port| port.rx_rate).sum();
        if rate == 0 {
            return Err(Trouble::Failed("nothing goes round".into()));
        }
        Ok(vec![match self.frames {
            Frames::Single => self.in_flight as f64 / rate as f64 * 1e6,
            Frames::Of(_) | Frames::Imix => rate as f64 / 1e6,
        }])
    }

    fn finish(&mut self) -> Result<(), String> {
        self.client.command("stop");
        let before = self.received();
        self.client.drain();
        let left = self.received() - before;
        if left == self.in_flight {
            return Ok(());
        }
        Err(format!(
            "{left} frames of {} were left at the end",
            self.in_flight
        ))
    }
}
