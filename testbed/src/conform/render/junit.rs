//! JUnit's XML: a suite for each device.

use crate::conform::report::{CaseReport, Outcome, Report};
use quick_junit::{
    NonSuccessKind, Report as Junit, SerializeError, TestCase, TestCaseStatus, TestSuite,
};
use std::time::Duration;

/// The report as JUnit has it. What a device cannot do is skipped, with the reason.
///
/// # Errors
/// It cannot be written as XML.
pub fn junit(report: &Report) -> Result<String, SerializeError> {
    let mut all = Junit::new("chanio conform");
    for device in &report.devices {
        let mut suite = TestSuite::new(device.title.as_str());
        suite.add_property(("device", device.device.as_str()));
        suite.add_property(("profile", device.profile.as_str()));
        suite.add_property(("version", device.version.as_str()));
        suite.add_property(("seed", report.seed.to_string().as_str()));
        suite.add_test_cases(device.cases.iter().map(test_case));
        all.add_test_suite(suite);
    }
    all.to_string()
}

fn test_case(case: &CaseReport) -> TestCase {
    let status = match &case.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::NotSupported { why } => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(format!("not supported: {why}"));
            status
        }
        Outcome::Error { why } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message(why.as_str());
            status
        }
        Outcome::Failed {
            why,
            expected,
            got,
            frames,
            trace,
        } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(why.as_str());
            let mut text = format!("expected: {expected}\ngot:      {got}\n");
            for frame in frames {
                let side = if frame.from_host { " by the host" } else { "" };
                text.push_str(&format!("sent on {}{side}: {}\n", frame.port, frame.hex));
            }
            for trace in trace {
                text.push_str(trace);
            }
            status.set_description(text);
            status
        }
    };
    let mut test = TestCase::new(case.name.as_str(), status);
    let group = case.name.split('.').next().unwrap_or_default();
    test.set_classname(group);
    test.set_time(Duration::from_secs_f64(case.seconds.max(0.0)));
    test
}

#[cfg(test)]
mod tests {
    use crate::conform::render::{junit, sample};

    #[test]
    fn counts_failures_errors_and_skips() {
        let xml = junit(&sample()).unwrap();
        let read = quick_junit::Report::deserialize_from_str(&xml).unwrap();
        assert_eq!((read.tests, read.failures, read.errors), (6, 1, 1));
        assert_eq!(xml.matches("<skipped").count(), 1, "{xml}");
        assert!(xml.contains("no such thing | here"), "{xml}");
        assert!(xml.contains("sent on a: 0203"), "{xml}");
    }
}
