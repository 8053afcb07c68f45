//! Channels with somebody at every end: the channel's own, the host's, and the wire's.

use super::case::{Ended, Failure, Stop};
use super::endpoint::Endpoint;
use super::report::SentFrame;
use crate::difftest::protocol::to_hex;
use crate::difftest::tunnel::settle;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// In every frame that a case sends, so that it is told from what kernels send on their own.
pub const MARK: &[u8] = b"chanio-conform";

/// How long a frame may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(3);
/// How long is waited for a frame that must not come.
const QUIET: Duration = Duration::from_millis(8);
/// How many of the frames sent last are kept for the report.
const KEPT: usize = 4;

/// A channel with its ends.
pub struct Port {
    /// The channel's name.
    pub name: String,
    /// Its address.
    pub mac: [u8; 6],
    /// The representor's netdev.
    pub representor: Option<String>,
    /// Whoever has the channel.
    pub own: Box<dyn Endpoint>,
    /// The host, on the representor.
    pub host: Option<Box<dyn Endpoint>>,
}

/// Where frames go in and come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The channel's own end, by its number in [`World::ports`].
    Own(usize),
    /// The host's, on its representor.
    Host(usize),
    /// The wire's other end.
    Wire,
}

/// All that there is on the device.
#[derive(Default)]
pub struct World {
    /// In the order in which they were made.
    pub ports: Vec<Port>,
    /// Somebody at the other end of the wire.
    pub wire: Option<Box<dyn Endpoint>>,
    /// The frames that were sent last.
    pub sent: VecDeque<SentFrame>,
    /// In legacy mode what the host sees is no case's affair: a software bridge sees everything,
    /// hardware nothing.
    pub legacy: bool,
}

/// A frame that must come out, and where.
pub type Expected = (Place, Vec<u8>);

impl World {
    /// The place that a vector calls so: `a`, `rep_a`, `wire`.
    pub fn place(&self, name: &str) -> Option<Place> {
        if name == "wire" {
            return Some(Place::Wire);
        }
        let (host, name) = match name.strip_prefix("rep_") {
            Some(name) => (true, name),
            None => (false, name),
        };
        let at = self.ports.iter().position(|port| port.name == name)?;
        Some(if host {
            Place::Host(at)
        } else {
            Place::Own(at)
        })
    }

    /// Sends a frame, and does not wait.
    ///
    /// # Errors
    /// It could not be sent.
    pub fn send(&mut self, from: Place, frame: &[u8]) -> Ended {
        let name = self.name_of(from);
        self.sent.truncate(KEPT - 1);
        self.sent.push_front(SentFrame {
            port: match from {
                Place::Own(n) | Place::Host(n) => self.ports[n].name.clone(),
                Place::Wire => "uplink".into(),
            },
            from_host: matches!(from, Place::Host(_)),
            hex: to_hex(frame),
        });
        let end = self.end(from)?;
        end.send(frame)
            .map_err(|e| Stop::Error(format!("sending from {name}: {e}")))
    }

    /// Sends a frame and waits for all that must come of it: these frames at these places, in this
    /// order at each, and nothing anywhere else.
    ///
    /// # Errors
    /// Something else came of it.
    pub fn exchange(&mut self, from: Place, frame: &[u8], expected: &[Expected]) -> Ended {
        self.send(from, frame)?;
        self.expect(expected)
    }

    /// Waits for these frames at these places, in this order at each.
    ///
    /// # Errors
    /// Something else came.
    pub fn expect(&mut self, expected: &[Expected]) -> Ended {
        for (place, _) in expected {
            self.end(*place)?;
        }
        let mut missing: Vec<&Expected> = expected.iter().collect();
        let until = Instant::now() + ARRIVAL;
        loop {
            let came = self.poll()?;
            let nothing = came.is_empty();
            for (place, frame) in came {
                let next = missing.iter().position(|(at, _)| *at == place);
                let Some(next) = next else {
                    return Err(self.unexpected(place, &frame, "nothing"));
                };
                let (_, wanted) = missing.remove(next);
                if settle(frame.clone()) != settle(wanted.clone()) {
                    return Err(self.unexpected(place, &frame, &to_hex(wanted)));
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                let (place, wanted) = missing[0];
                return Err(Stop::Failed(Failure {
                    why: format!("a frame does not come out at {}", self.name_of(*place)),
                    expected: to_hex(wanted),
                    got: "nothing".into(),
                }));
            }
            if nothing {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// Something did.
    pub fn quiet(&mut self) -> Ended {
        let until = Instant::now() + QUIET;
        while Instant::now() < until {
            if let Some((place, frame)) = self.poll()?.pop() {
                return Err(self.unexpected(place, &frame, "nothing"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        self.settle()?;
        match self.poll()?.pop() {
            Some((place, frame)) => Err(self.unexpected(place, &frame, "nothing")),
            None => Ok(()),
        }
    }

    fn settle(&mut self) -> Ended {
        let mut ends = self.ports.iter_mut().map(|port| &mut port.own);
        Ok(ends.try_for_each(|end| end.settle())?)
    }

    /// Takes away whatever is still there.
    ///
    /// # Errors
    /// Something broke.
    pub fn drain(&mut self) -> Ended {
        self.settle()?;
        while !self.poll()?.is_empty() {}
        Ok(())
    }

    /// Marked frames that are there, from everywhere.
    ///
    /// # Errors
    /// Something broke.
    pub fn poll(&mut self) -> Ended<Vec<(Place, Vec<u8>)>> {
        let mut came = Vec::new();
        for (n, port) in self.ports.iter_mut().enumerate() {
            take(&mut *port.own, Place::Own(n), &mut came)?;
            if let Some(host) = &mut port.host {
                let before = came.len();
                take(&mut **host, Place::Host(n), &mut came)?;
                if self.legacy {
                    came.truncate(before);
                }
            }
        }
        if let Some(wire) = &mut self.wire {
            take(&mut **wire, Place::Wire, &mut came)?;
        }
        Ok(came)
    }

    /// Whoever is at a place.
    ///
    /// # Errors
    /// Nobody is; where the device has no such end at all, it is not supported.
    pub fn end(&mut self, place: Place) -> Ended<&mut dyn Endpoint> {
        let end = match place {
            Place::Own(n) => self.ports.get_mut(n).map(|port| &mut port.own),
            Place::Host(n) => self.ports.get_mut(n).and_then(|port| port.host.as_mut()),
            Place::Wire => self.wire.as_mut(),
        };
        match end {
            Some(end) => match end.absent() {
                Some(why) => Err(Stop::NotSupported(why.to_owned())),
                None => Ok(&mut **end),
            },
            None => Err(Stop::Error(format!("nobody is at {place:?}"))),
        }
    }

    fn unexpected(&self, place: Place, got: &[u8], expected: &str) -> Stop {
        Stop::Failed(Failure {
            why: format!("another frame comes out at {}", self.name_of(place)),
            expected: expected.into(),
            got: to_hex(got),
        })
    }

    fn name_of(&self, place: Place) -> String {
        let name = |n: usize| self.ports.get(n).map_or("?", |port| &port.name);
        match place {
            Place::Own(n) => format!("channel {}", name(n)),
            Place::Host(n) => format!("the representor of {}", name(n)),
            Place::Wire => "the wire".into(),
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.ports.iter().map(|port| &port.name);
        f.debug_list().entries(names).finish()
    }
}

fn take(end: &mut dyn Endpoint, place: Place, came: &mut Vec<(Place, Vec<u8>)>) -> io::Result<()> {
    while let Some(frame) = end.receive()? {
        if frame.windows(MARK.len()).any(|part| part == MARK) {
            came.push((place, frame));
        }
    }
    Ok(())
}
