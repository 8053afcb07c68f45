//! What is compared, by name.

mod iperf;
mod rtt;
mod rules;
mod scale;
mod switching;

use crate::bed::Bed;
use crate::rig::{Rig, Trouble};
use serde::Serialize;

/// What a case measures.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Metric {
    /// Its name where a case has several, else empty.
    pub name: &'static str,
    /// Of its values.
    pub unit: &'static str,
    /// Whether a ratio above 1 speaks for chanio.
    pub higher_is_better: bool,
}

/// Frames in a second.
pub const MPPS: Metric = Metric {
    name: "",
    unit: "Mpps",
    higher_is_better: true,
};

type Start = Box<dyn Fn(&Bed) -> Result<Box<dyn Rig>, Trouble>>;

/// One that is compared.
pub struct Contender {
    /// Its name in the table.
    pub name: &'static str,
    /// Makes it ready to be measured.
    pub start: Start,
}

impl Contender {
    fn new<R: Rig + 'static>(
        name: &'static str,
        start: impl Fn(&Bed) -> Result<R, Trouble> + 'static,
    ) -> Self {
        let start = move |bed: &Bed| start(bed).map(|rig| Box::new(rig) as Box<dyn Rig>);
        Self {
            name,
            start: Box::new(start),
        }
    }
}

/// A comparison.
pub struct Case {
    /// By which it is asked for.
    pub name: String,
    /// What goes on in it.
    pub about: String,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// chanio, then its peers.
    pub contenders: Vec<Contender>,
    /// There are more busy threads than cpus: that one waits for another is part of it.
    pub contended: bool,
    /// It boots the testbed's guest.
    pub guest: bool,
    /// It is a point of a plot.
    pub series: Option<Series>,
}

/// Cases that differ in one number.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// All of them are called this, too.
    pub name: &'static str,
    /// What the number is.
    pub axis: &'static str,
    /// The number.
    pub at: usize,
}

impl Case {
    /// With a cpu for each busy thread.
    fn new(name: &str, about: String, metrics: &[Metric], contenders: Vec<Contender>) -> Self {
        Self {
            name: name.to_owned(),
            about,
            metrics: metrics.to_vec(),
            contenders,
            contended: false,
            guest: false,
            series: None,
        }
    }

    fn in_series(self, name: &'static str, axis: &'static str, at: usize) -> Self {
        let series = Some(Series { name, axis, at });
        Self { series, ..self }
    }

    /// Whether `name` asks for it.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.series.as_ref().is_some_and(|s| s.name == name)
    }
}

/// All of them, in the order in which they run; `idle` says beside how many idle channels.
pub fn all(idle: &[usize]) -> Vec<Case> {
    let mut all = switching::cases();
    all.extend(rtt::cases());
    all.extend(rules::cases());
    all.extend(iperf::cases());
    all.extend(scale::cases(idle));
    all
}
