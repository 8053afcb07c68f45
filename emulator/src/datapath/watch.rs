//! Showing the frames of a burst to those who capture.

use super::explain::{explain, last_lookup};
use super::frame::{Bytes, Frame, Leaving};
use super::published::Config;
use super::receive::Origin;
use crate::capture::{Captures, Place, Point};
use chanio_model::eswitch::Fdb;
use chanio_model::{DropReason, Nanos, VportId};

/// Who wants to see the frames of a burst; most often nobody.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    captures: Option<&'a Captures>,
    /// The queue pair that the burst came from, where there are several.
    queue: Option<u16>,
}

/// What is needed to tell which rule lost a frame.
#[derive(Clone, Copy)]
pub struct Decided<'a> {
    pub config: &'a Config,
    pub fdb: &'a Fdb,
    pub from: VportId,
    pub origin: Origin,
    pub now: Nanos,
}

impl<'a> Watch<'a> {
    #[inline]
    pub fn new(captures: &'a Captures, queue: Option<u16>) -> Self {
        Self {
            captures: captures.is_active().then_some(captures),
            queue,
        }
    }

    /// The burst as it came in.
    #[inline]
    pub fn arrived(self, vport: VportId, origin: Origin, frames: &[Frame<'_>]) {
        if let Some(captures) = self.captures {
            let point = match origin {
                Origin::Vport => Point::FromPort,
                Origin::Representor => Point::FromHost,
            };
            for frame in frames {
                show(
                    captures,
                    place(vport, point, self.queue),
                    &frame.leaving_as_it_came(),
                );
            }
        }
    }

    /// A frame that the switch gives to nobody, at the port that is charged.
    #[inline]
    pub fn refused(
        self,
        vport: VportId,
        reason: DropReason,
        frame: &Frame<'_>,
        decided: Decided<'_>,
    ) {
        if let Some(captures) = self.captures {
            let queue = self.queue.filter(|_| vport == decided.from);
            show_refused(captures, vport, queue, reason, frame, decided);
        }
    }

    /// Whether anybody wants to.
    #[inline]
    pub fn is_active(self) -> bool {
        self.captures.is_some()
    }

    /// A frame that got there, or did not; with the chain that had no rule for it.
    #[inline]
    pub fn left(
        self,
        vport: VportId,
        point: Point,
        queue: Option<u16>,
        no_rule_in: Option<u32>,
        leaving: impl FnOnce() -> Leaving<'a>,
        sent: Result<(), DropReason>,
    ) {
        if let Some(captures) = self.captures {
            let reason = sent.err();
            let point = reason.map_or(point, |_| Point::Lost);
            let place = Place {
                reason,
                no_rule_in,
                ..place(vport, point, queue)
            };
            show(captures, place, &leaving());
        }
    }
}

#[cold]
fn show_refused(
    captures: &Captures,
    vport: VportId,
    queue: Option<u16>,
    reason: DropReason,
    frame: &Frame<'_>,
    decided: Decided<'_>,
) {
    let Decided {
        config,
        fdb,
        from,
        origin,
        now,
    } = decided;
    let steps = explain(
        config,
        fdb,
        from,
        origin,
        frame.head(),
        frame.len as u32,
        now,
    );
    let (rule, no_rule_in) = last_lookup(&steps);
    let place = Place {
        reason: Some(reason),
        rule,
        no_rule_in,
        ..place(vport, Point::Lost, queue)
    };
    show(captures, place, &frame.leaving_as_it_came());
}

fn place(vport: VportId, point: Point, queue: Option<u16>) -> Place {
    Place {
        vport,
        point,
        queue,
        reason: None,
        rule: None,
        no_rule_in: None,
    }
}

#[cold]
fn show(captures: &Captures, place: Place, leaving: &Leaving<'_>) {
    captures.show(place, leaving.len(), |into, n| {
        let mut tag = [0; 4];
        for piece in leaving.head_pieces(&mut tag) {
            let room = n - into.len();
            into.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let at = into.len();
        let (offset, len) = leaving.tail();
        into.resize(at + len.min(n - at), 0);
        let source: Bytes<'_> = leaving.source();
        source.copy_out(offset, &mut into[at..]);
    });
}
