//! What somebody wants to see.

use super::Place;
use chanio_model::{DropReason, VportId};

/// What happens to a frame when it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// It enters the switch: a channel sends it, or it comes from the wire.
    FromPort,
    /// It leaves the switch: a channel receives it, or it goes onto the wire.
    ToPort,
    /// The host gets it on a representor.
    ToHost,
    /// The host sends it on a representor.
    FromHost,
    /// It is lost.
    Lost,
}

impl Point {
    /// All of them, with the names that the API and `--json` use.
    pub const ALL: [(Point, &'static str); 5] = [
        (Point::FromPort, "tx"),
        (Point::ToPort, "rx"),
        (Point::ToHost, "representor-rx"),
        (Point::FromHost, "representor-tx"),
        (Point::Lost, "drop"),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(point, _)| *point == self);
        found.map_or("", |(_, name)| name)
    }

    /// The point of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, n)| *n == name);
        found.map(|(point, _)| *point)
    }
}

/// The most that is shown of a frame, in bytes: all of any.
pub const MAX_SNAPLEN: u32 = 262_144;

/// What somebody wants to see. An empty list means all.
#[derive(Clone, Debug)]
pub struct Filter {
    /// At these ports.
    pub ports: Vec<VportId>,
    /// At these points.
    pub points: Vec<Point>,
    /// On this queue pair; frames whose queue is not known are not shown then.
    pub queue: Option<u16>,
    /// Lost for these reasons.
    pub reasons: Vec<DropReason>,
    /// So much of a frame, in bytes.
    pub snaplen: u32,
}

impl Default for Filter {
    /// Everything.
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            points: Vec::new(),
            queue: None,
            reasons: Vec::new(),
            snaplen: MAX_SNAPLEN,
        }
    }
}

impl Filter {
    pub(super) fn wants(&self, place: &Place) -> bool {
        let reason = |r: DropReason| self.reasons.contains(&r);
        (self.ports.is_empty() || self.ports.contains(&place.vport))
            && (self.points.is_empty() || self.points.contains(&place.point))
            && (self.queue.is_none() || self.queue == place.queue)
            && (self.reasons.is_empty() || place.reason.is_some_and(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_narrows() {
        let lost = Place {
            vport: VportId(3),
            point: Point::Lost,
            queue: Some(1),
            reason: Some(DropReason::RuleDrop),
            rule: None,
            no_rule_in: None,
        };
        let wants = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.wants(&lost)
        };
        assert!(wants(|_| ()));
        assert!(wants(|f| f.ports = vec![VportId(3), VportId(4)]));
        assert!(!wants(|f| f.ports = vec![VportId(4)]));
        assert!(wants(|f| f.points = vec![Point::Lost]));
        assert!(!wants(|f| f.points = vec![Point::ToPort]));
        assert!(wants(|f| f.queue = Some(1)));
        assert!(!wants(|f| f.queue = Some(0)));
        assert!(wants(|f| f.reasons = vec![DropReason::RuleDrop]));
        assert!(!wants(|f| f.reasons = vec![DropReason::Runt]));
    }

    #[test]
    fn points_go_by_their_names() {
        for (point, name) in Point::ALL {
            assert_eq!((Point::by_name(name), point.name()), (Some(point), name));
        }
        assert_eq!(Point::by_name("nowhere"), None);
    }
}
