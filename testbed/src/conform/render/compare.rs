//! Where two devices differ.

use crate::conform::report::{DeviceReport, Outcome};

/// A case that ended differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name.
    pub case: String,
    /// How it ended on the one, with the reason.
    pub one: String,
    /// How it ended on the other.
    pub other: String,
}

/// Cases that ended differently on two devices, and those that only one of them was put through.
pub fn differences(one: &DeviceReport, other: &DeviceReport) -> Vec<Difference> {
    let mut names: Vec<&String> = one.cases.iter().map(|case| &case.name).collect();
    let more = other.cases.iter().map(|case| &case.name);
    names.extend(more.filter(|name| one.case(name).is_none()));
    let end =
        |device: &DeviceReport, name: &str| device.case(name).map(|case| case.outcome.clone());
    let mut all = Vec::new();
    for name in names {
        let (a, b) = (end(one, name), end(other, name));
        // The same end for another reason is the same end.
        if a.as_ref().map(Outcome::word) != b.as_ref().map(Outcome::word) {
            all.push(Difference {
                case: name.clone(),
                one: text(a.as_ref()),
                other: text(b.as_ref()),
            });
        }
    }
    all
}

fn text(outcome: Option<&Outcome>) -> String {
    let Some(outcome) = outcome else {
        return "not run".into();
    };
    let word = outcome.word().replace('_', " ");
    match outcome.why() {
        Some(why) => format!("{word}: {why}"),
        None => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::render::sample;

    #[test]
    fn lists_what_ended_differently() {
        let mut report = sample();
        report.devices[1].cases.pop();
        let found = differences(&report.devices[0], &report.devices[1]);
        let names: Vec<_> = found.iter().map(|d| d.case.as_str()).collect();
        assert_eq!(names, ["slow.to_host", "slow.bridge", "rates.max"]);
        assert_eq!(found[0].other, "not supported: no such thing | here");
        assert_eq!(found[2].other, "not run");
        assert_eq!(differences(&report.devices[0], &report.devices[0]), []);
    }
}
