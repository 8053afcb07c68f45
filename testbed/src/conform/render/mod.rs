//! Reports for people and programs.
//!
//! | file | what lives there |
//! |---|---|
//! | `html` | one self-contained page: the matrix, failures, plots |
//! | `plot` | bars as SVG |
//! | `junit` | JUnit's XML, for CI |
//! | `markdown` | the matrix in docs/conformance.md |
//! | `compare` | where two devices differ |

mod compare;
mod html;
mod junit;
mod markdown;
mod plot;

pub use compare::{Difference, differences};
pub use html::page;
pub use junit::junit;
pub use markdown::{MarkdownError, case_list, matrix, rewrite};

use super::report::Report;
use std::io;
use std::path::Path;

/// Writes `conformance.json`, `conformance.xml` and `conformance.html` to `dir`, which is made if
/// it is not there.
///
/// # Errors
/// The system's.
pub fn write(dir: &Path, report: &Report) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let json = serde_json::to_string_pretty(report)?;
    std::fs::write(dir.join("conformance.json"), json + "\n")?;
    let xml = junit(report).map_err(io::Error::other)?;
    std::fs::write(dir.join("conformance.xml"), xml)?;
    std::fs::write(dir.join("conformance.html"), page(report)?)
}

/// A report with every kind of outcome, for tests.
#[cfg(test)]
fn sample() -> Report {
    use super::report::*;
    let case = |name: &str, outcome| CaseReport {
        name: name.into(),
        about: "what <it> is about".into(),
        source: "RFC 1 & more".into(),
        outcome,
        seconds: 0.25,
        measured: Vec::new(),
        drops: [("a".into(), [("rule_drop".into(), 3)].into())].into(),
    };
    let failed = Outcome::Failed {
        why: "a frame \"does\" not come".into(),
        expected: "0203".into(),
        got: "nothing".into(),
        frames: vec![SentFrame {
            port: "a".into(),
            from_host: false,
            hex: "0203".into(),
        }],
        trace: vec!["chain 0: <nothing>".into()],
    };
    let not_supported = Outcome::NotSupported {
        why: "no such thing | here".into(),
    };
    let error = Outcome::Error {
        why: "no root".into(),
    };
    let mut measured = case("rates.max", Outcome::Passed);
    measured.measured.push(Measured {
        title: "A channel <with> a ceiling".into(),
        unit: "MB/s".into(),
        bars: vec![Bar {
            label: "a".into(),
            value: 3.9,
            expected: 4.0,
        }],
    });
    let device = |title: &str, cases| DeviceReport {
        title: title.into(),
        device: format!("emu:/run/{title}"),
        profile: title.into(),
        version: "0.1.0".into(),
        endpoints: "netns".into(),
        cases,
    };
    Report {
        version: "0.1.0".into(),
        seed: 7,
        devices: vec![
            device(
                "one",
                vec![
                    case("slow.to_host", Outcome::Passed),
                    case("slow.bridge", failed),
                    measured.clone(),
                ],
            ),
            device(
                "two",
                vec![
                    case("slow.to_host", not_supported),
                    case("slow.bridge", error),
                    measured,
                ],
            ),
        ],
    }
}
