//! One frame at a time.

use super::{Case, Contender, Metric};
use crate::backend::{Backend, SWITCHES};
use crate::bed::Bed;
use crate::client::{Frames, Loop};
use crate::machine::CLIENT_CPU;
use crate::rig::{Rig, Trouble};
use chanio_testbed::process::Process;
use std::time::Duration;

pub fn cases() -> Vec<Case> {
    let micros = |name| Metric {
        name,
        unit: "us",
        higher_is_better: false,
    };
    let own = SWITCHES
        .map(|(name, start)| Contender::new(name, move |bed| OneByOne::start(bed, start(bed, 2)?)));
    let testpmd = SWITCHES.map(|(name, start)| {
        Contender::new(name, move |bed| {
            Loop::start(bed, start(bed, 2)?, Frames::Single, false)
        })
    });
    vec![
        Case::new(
            "rtt",
            "a 64 B frame, alone, from a port through the switch to the other, seen by a client \
             that polls both: the time of each is counted"
                .into(),
            &[micros("p50"), micros("p99"), micros("mean")],
            own.into(),
        ),
        Case::new(
            "rtt-mean",
            "the same by testpmd as client: one 64 B frame in each direction goes round, one at a \
             time; frames in flight divided by their rate is the mean time (Little)"
                .into(),
            &[micros("")],
            testpmd.into(),
        ),
    ]
}

/// A backend and a client of our own that sends one frame at a time.
struct OneByOne {
    client: Process,
    backend: Backend,
}

impl OneByOne {
    fn start(bed: &Bed, backend: Backend) -> Result<Self, Trouble> {
        let dir = bed.run_dir()?;
        let mut command = bed.command(&[CLIENT_CPU], std::env::current_exe()?);
        command.arg("rtt").args(&backend.sockets);
        let mut client = Process::start("rtt", &dir, &mut command);
        client.wait_output("ready", 0, Duration::from_secs(60), |t| t.contains("ready"));
        Ok(Self { client, backend })
    }
}

impl Rig for OneByOne {
    fn processes(&self) -> Vec<u32> {
        vec![self.backend.pid(), self.client.pid()]
    }

    fn window(&mut self, time: Duration) -> Result<Vec<f64>, Trouble> {
        let from = self.client.said();
        self.client.say(&time.as_secs_f64().to_string());
        let patience = time + Duration::from_secs(30);
        let said = self
            .client
            .wait_output("times", from, patience, |t| t.ends_with('\n'));
        let mut numbers = said.split_whitespace().skip(2).map(|n| n.parse::<f64>());
        let mut next = || match numbers.next() {
            Some(Ok(nanos)) => Ok(nanos / 1000.0),
            _ => Err(Trouble::Failed(format!("the client said: {said}"))),
        };
        let (mean, p50, p99) = (next()?, next()?, next()?);
        Ok(vec![p50, p99, mean])
    }
}
