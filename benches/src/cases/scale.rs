//! How the rate changes with the number of channels: active ones, and idle ones beside them.

use super::{Case, Contender, MPPS, Metric};
use crate::backend::{Backend, SWITCHES};
use crate::bed::Bed;
use crate::client::{Frames, Loop};
use crate::machine::CLIENT_CPU;
use crate::rig::{Rig, Trouble};
use chanio_testbed::process::Process;
use std::time::Duration;

/// Pairs of active channels: testpmd, as peer and as client, has 32 ports at most.
const PAIRS: [usize; 5] = [1, 2, 4, 8, 16];
const TESTPMD_PORTS: usize = 32;
/// DPDK's vhost library, which is also Open vSwitch's, watches 1024 sockets at most: a port that
/// listens and its connection are two.
const OVS_PORTS: usize = 510;
/// Idle drivers in one helper: each has a handful of open files.
const IN_A_HELPER: usize = 1500;
/// Open files of a device, and no more of a driver, for each connected channel, and what they have
/// besides.
const FILES: (u64, u64) = (2, 100);

/// Of the process that forwards, without the hugepages that DPDK has besides.
const RESIDENT: Metric = Metric {
    name: "resident",
    unit: "MiB",
    higher_is_better: false,
};

/// With how many connected ports each of [`SWITCHES`] works.
const MOST_PORTS: [usize; 3] = [usize::MAX, OVS_PORTS, TESTPMD_PORTS];

/// `idle` says beside how many idle channels to measure.
pub fn cases(idle: &[usize]) -> Vec<Case> {
    let active = PAIRS.map(|pairs| {
        let contenders = SWITCHES.map(|(name, start)| {
            Contender::new(name, move |bed| {
                Loop::start(bed, start(bed, 2 * pairs)?, Frames::Of(64), false)
            })
        });
        let about = format!("as loop64, with 2 x {pairs} ports");
        let case = Case::new(
            &format!("active-{pairs}"),
            about,
            &[MPPS],
            contenders.into(),
        );
        case.in_series("active", "pairs of active channels", pairs)
    });
    let idle = idle.iter().map(|&idle| {
        let crowds = [0, 1, 2].map(|n| {
            let ((name, start), most) = (SWITCHES[n], MOST_PORTS[n]);
            Contender::new(name, move |bed| {
                if idle + 2 > most {
                    let why = format!("not possible: {most} connected ports at most");
                    return Err(Trouble::Unsupported(why));
                }
                let wanted = FILES.0 * idle as u64 + FILES.1;
                let limit = chanio_emu::port::nofile_limit(wanted);
                if limit < wanted {
                    return Err(Trouble::Unsupported(format!(
                        "not possible here: {idle} connected channels need {wanted} open files, \
                         the limit is {limit}"
                    )));
                }
                Crowd::start(bed, start(bed, idle + 2)?)
            })
        });
        let mut contenders = Vec::from(crowds);
        if idle > 0 {
            let (_, start) = SWITCHES[0];
            contenders.push(Contender::new("chanio without them", move |bed| {
                Crowd::start(bed, start(bed, 2)?)
            }));
        }
        let about = format!("as loop64, beside {idle} channels with a driver that does nothing");
        let metrics = [MPPS, RESIDENT];
        let case = Case::new(&format!("idle-{idle}"), about, &metrics, contenders);
        case.in_series("idle", "idle channels, connected", idle)
    });
    active.into_iter().chain(idle).collect()
}

/// Two ports that are busy, and others that are connected.
struct Crowd {
    busy: Loop,
    // Gone before the backend would be: what it does about that is not measured.
    _idle: Vec<Process>,
}

impl Crowd {
    fn start(bed: &Bed, mut backend: Backend) -> Result<Self, Trouble> {
        let dir = bed.run_dir()?;
        let idle = backend.sockets.split_off(2);
        let mut helpers = Vec::new();
        for (n, sockets) in idle.chunks(IN_A_HELPER).enumerate() {
            let file = dir.join(format!("sockets{n}"));
            let lines: Vec<_> = sockets.iter().map(|s| s.display().to_string()).collect();
            std::fs::write(&file, lines.join("\n"))?;
            let mut command = bed.command(&[CLIENT_CPU], std::env::current_exe()?);
            command.arg("hold").arg(&file);
            let mut helper = Process::start(&format!("hold{n}"), &dir, &mut command);
            let patience = Duration::from_secs(300);
            helper.wait_output("idle drivers", 0, patience, |t| t.contains("connected"));
            helpers.push(helper);
        }
        Ok(Self {
            busy: Loop::start(bed, backend, Frames::Of(64), false)?,
            _idle: helpers,
        })
    }
}

impl Rig for Crowd {
    fn processes(&self) -> Vec<u32> {
        self.busy.processes()
    }

    fn window(&mut self, time: Duration) -> Result<Vec<f64>, Trouble> {
        let mut values = self.busy.window(time)?;
        values.push(resident(self.processes()[0])?);
        Ok(values)
    }

    fn finish(&mut self) -> Result<(), String> {
        self.busy.finish()
    }
}

/// MiB of memory that a process has, hugepages apart.
fn resident(pid: u32) -> Result<f64, Trouble> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    match kib {
        Some(kib) => Ok(kib / 1024.0),
        None => Err(Trouble::Failed(format!("no VmRSS of process {pid}"))),
    }
}
