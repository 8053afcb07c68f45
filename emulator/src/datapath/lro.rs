//! Joining TCP segments of a burst for a ring whose driver takes large packets (LRO).

use super::classify::Delivery;
use super::deliver::Classified;
use super::frame::{Leaving, MAX_LEAVING};
use chanio_model::offload::{GsoKind, Offload, RxOffloads, Segment, Train};

/// The worker's memory for joining.
pub struct Joiner {
    /// A train.
    train: Vec<u8>,
    /// What is to be appended to it.
    frame: Vec<u8>,
    /// What each delivery of a share could be in a train; taken once it is in one.
    segments: Vec<Option<Segment>>,
}

impl Joiner {
    pub fn new() -> Self {
        Self {
            train: vec![0; MAX_LEAVING],
            frame: vec![0; MAX_LEAVING],
            segments: Vec::new(),
        }
    }

    /// Puts what can be joined beside each other in `share`, and says how many deliveries each
    /// group has. Only headers are looked at. Packets of a flow stay in order.
    pub fn group(
        &mut self,
        share: &mut [Delivery],
        groups: &mut Vec<usize>,
        burst: Classified<'_, '_>,
        takes: RxOffloads,
    ) {
        let segment = |delivery: &Delivery| {
            let leaving = burst.leaving(delivery);
            let segment = Segment::of(
                leaving.untagged_head()?,
                leaving.len() as u32,
                &leaving.offload(),
            )?;
            let taken = match segment.kind() {
                GsoKind::Tcp4 => takes.tso4,
                _ => takes.tso6,
            };
            taken.then_some(segment)
        };
        self.segments.clear();
        self.segments.extend(share.iter().map(segment));
        groups.clear();
        let mut at = 0;
        while at < share.len() {
            let end = self.gather(share, at);
            groups.push(end - at);
            at = end;
        }
    }

    /// Moves what follows the delivery at `at` to the places behind it; returns where that ends.
    fn gather(&mut self, share: &mut [Delivery], at: usize) -> usize {
        let Some(first) = self.segments[at] else {
            return at + 1;
        };
        let (mut train, mut end) = (Train::begin(first), at + 1);
        for next in at + 1..share.len() {
            // What is no segment may be of any flow.
            let Some(segment) = self.segments[next] else {
                break;
            };
            if train.continues_with(&segment) {
                train.lengthen(&segment);
                share[end..=next].rotate_right(1);
                self.segments[end..=next].rotate_right(1);
                end += 1;
            } else if segment.is_of_flow(&first) {
                break;
            }
        }
        end
    }

    /// Joins the first deliveries of a group, as many as have right checksums: how many those are,
    /// and if there are at least two, the packet made of them.
    pub fn join(
        &mut self,
        group: &[Delivery],
        burst: Classified<'_, '_>,
    ) -> (usize, Option<(&mut [u8], Offload)>) {
        let (buffer, more) = (&mut self.train, &mut self.frame);
        let mut train: Option<Train> = None;
        let mut count = 0;
        for delivery in group {
            let leaving = burst.leaving(delivery);
            match &mut train {
                None => match whole_segment(&leaving, buffer) {
                    Some((first, _)) => train = Some(Train::begin(first)),
                    None => break,
                },
                Some(train) => {
                    let Some((segment, frame)) = whole_segment(&leaving, more) else {
                        break;
                    };
                    if !train.continues_with(&segment) || !train.append(buffer, &segment, frame) {
                        break;
                    }
                }
            }
            count += 1;
        }
        match train {
            Some(train) if count > 1 => {
                let (len, offload) = train.finish(&mut self.train);
                (count, Some((&mut self.train[..len], offload)))
            }
            _ => (1, None),
        }
    }
}

/// A frame in one piece, if its checksum is right. What counts is what is copied here: a guest may
/// have written to its buffers since it was looked at.
fn whole_segment<'b>(leaving: &Leaving<'_>, into: &'b mut [u8]) -> Option<(Segment, &'b [u8])> {
    let offload = leaving.offload();
    let frame = &*leaving.flatten(into);
    let segment = Segment::of(frame, frame.len() as u32, &offload)?;
    segment.verify(frame, &offload).then_some((segment, frame))
}
