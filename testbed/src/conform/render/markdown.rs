//! The matrix and the list of cases in docs/conformance.md.

use crate::conform::case::Case;
use crate::conform::report::{Outcome, Report};
use std::fmt::Write;
use std::path::Path;

/// Why a file was not rewritten.
#[derive(Debug, thiserror::Error)]
pub enum MarkdownError {
    /// The system's.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It does not say where.
    #[error("{path}: the lines `<!-- {part} -->` and `<!-- /{part} -->` are missing")]
    NoPlace {
        /// The file.
        path: String,
        /// `matrix` or `cases`.
        part: &'static str,
    },
}

/// Puts matrix and list of cases into a file, between `<!-- matrix -->` and `<!-- /matrix -->`,
/// `<!-- cases -->` and `<!-- /cases -->`; the rest stays.
///
/// # Errors
/// The file cannot be read or written, or lacks these lines.
pub fn rewrite(path: &Path, report: &Report, cases: &[Case]) -> Result<(), MarkdownError> {
    let mut text = std::fs::read_to_string(path)?;
    for (part, content) in [("matrix", matrix(report)), ("cases", case_list(cases))] {
        text = put(&text, part, &content).ok_or_else(|| MarkdownError::NoPlace {
            path: path.display().to_string(),
            part,
        })?;
    }
    std::fs::write(path, text)?;
    Ok(())
}

fn put(text: &str, part: &str, content: &str) -> Option<String> {
    let (open, close) = (format!("<!-- {part} -->\n"), format!("<!-- /{part} -->"));
    let from = text.find(&open)? + open.len();
    let to = from + text[from..].find(&close)?;
    Some([&text[..from], content, &text[to..]].concat())
}

/// A cell, without what would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Devices by cases; what a device cannot do is told below, each reason once.
pub fn matrix(report: &Report) -> String {
    let mut text = String::from("| case |");
    for device in &report.devices {
        let _ = write!(text, " {} |", cell(&device.title));
    }
    let columns = "---|".repeat(report.devices.len());
    let _ = write!(text, "\n|---|{columns}\n");
    let mut reasons: Vec<&str> = Vec::new();
    for name in report.case_names() {
        let _ = write!(text, "| `{name}` |");
        for device in &report.devices {
            let shown = match device.case(name).map(|case| &case.outcome) {
                None => String::new(),
                Some(Outcome::Passed) => "yes".into(),
                Some(Outcome::Failed { .. }) => "**failed**".into(),
                Some(Outcome::Error { .. }) => "**error**".into(),
                Some(Outcome::NotSupported { why }) => {
                    let known = reasons.iter().position(|reason| reason == why);
                    let number = known.unwrap_or_else(|| {
                        reasons.push(why);
                        reasons.len() - 1
                    });
                    format!("no ({})", number + 1)
                }
            };
            let _ = write!(text, " {shown} |");
        }
        text.push('\n');
    }
    text.push_str("| |");
    for device in &report.devices {
        let _ = write!(text, " {} |", device.summary());
    }
    text.push_str("\n\n");
    for (n, reason) in reasons.iter().enumerate() {
        let _ = writeln!(text, "{}. {}", n + 1, cell(reason));
    }
    text
}

/// What each case is about.
pub fn case_list(cases: &[Case]) -> String {
    let mut text = String::from("| case | what a device is held to | source |\n|---|---|---|\n");
    for case in cases {
        let (about, source) = (cell(&case.about), cell(&case.source));
        let _ = writeln!(text, "| `{}` | {about} | {source} |", case.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::render::sample;

    #[test]
    fn replaces_what_is_between_the_marks_and_nothing_else() {
        let text = "before\n<!-- matrix -->\nold\n<!-- /matrix -->\nafter\n";
        let now = put(text, "matrix", "new\n").unwrap();
        assert_eq!(now, text.replace("old", "new"));
        assert_eq!(put("nothing", "matrix", ""), None);
    }

    #[test]
    fn a_reason_is_told_once() {
        let text = matrix(&sample());
        assert!(text.contains("| `slow.to_host` | yes | no (1) |"), "{text}");
        assert!(
            text.contains("| `slow.bridge` | **failed** | **error** |"),
            "{text}"
        );
        assert!(text.contains("1. no such thing \\| here"), "{text}");
    }
}
