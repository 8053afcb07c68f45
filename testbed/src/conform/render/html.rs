//! One self-contained page: no script, no font, no picture from anywhere.

use super::plot;
use crate::conform::report::{CaseReport, DeviceReport, Outcome, Report};
use std::fmt::Write;
use std::io;

const STYLE: &str = include_str!("style.css");

/// Text that is text in HTML, too.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// The page.
///
/// # Errors
/// A plot cannot be drawn.
pub fn page(report: &Report) -> io::Result<String> {
    let mut body = String::new();
    summary(report, &mut body);
    matrix(report, &mut body);
    for (n, device) in report.devices.iter().enumerate() {
        troubles(n, device, &mut body);
    }
    plots(report, &mut body)?;
    drops(report, &mut body);
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <title>Conformance</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    ))
}

fn summary(report: &Report, out: &mut String) {
    let _ = writeln!(
        out,
        "<h1>Conformance</h1>\n<p>chanio {}, seed {}</p>\n<table class=\"devices\">\n\
         <tr><th>device</th><th>kind</th><th>version</th><th>endpoints</th><th>passed</th>\
         <th>failed</th><th>not supported</th><th>errors</th></tr>",
        plain(&report.version),
        report.seed
    );
    for device in &report.devices {
        let tally = device.tally();
        let count = |word| tally.get(word).copied().unwrap_or(0);
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            plain(&device.device),
            plain(&device.profile),
            plain(&device.version),
            plain(&device.endpoints),
            count("passed"),
            count("failed"),
            count("not_supported"),
            count("error")
        );
    }
    out.push_str("</table>\n");
}

fn matrix(report: &Report, out: &mut String) {
    out.push_str("<h2>Matrix</h2>\n<table id=\"matrix\">\n<tr><th>case</th>");
    for device in &report.devices {
        let _ = write!(out, "<th>{}</th>", plain(&device.title));
    }
    out.push_str("</tr>\n");
    let mut group = "";
    for name in report.case_names() {
        let this = name.split('.').next().unwrap_or_default();
        if this != group {
            group = this;
            let columns = report.devices.len() + 1;
            let _ = writeln!(
                out,
                "<tr class=\"group\"><td colspan=\"{columns}\">{}</td></tr>",
                plain(group)
            );
        }
        let mut devices = report.devices.iter();
        let about = devices.find_map(|device| device.case(name));
        let about = about.map_or("", |case| &case.about);
        let _ = write!(
            out,
            "<tr><td title=\"{}\"><code>{}</code></td>",
            plain(about),
            plain(name)
        );
        for (n, device) in report.devices.iter().enumerate() {
            cell(n, device.case(name), out);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}

/// Where the details of a case are.
fn anchor(device: usize, case: &str) -> String {
    format!("d{device}-{}", plain(case))
}

fn cell(device: usize, case: Option<&CaseReport>, out: &mut String) {
    let Some(case) = case else {
        out.push_str("<td class=\"none\"></td>");
        return;
    };
    let word = case.outcome.word();
    let shown = match &case.outcome {
        Outcome::Passed => "passed".into(),
        Outcome::NotSupported { why } => {
            format!(
                "<details><summary>not supported</summary>{}</details>",
                plain(why)
            )
        }
        _ => format!("<a href=\"#{}\">{word}</a>", anchor(device, &case.name)),
    };
    let _ = write!(
        out,
        "<td class=\"{word}\" data-case=\"{}\" data-device=\"{device}\">{shown}</td>",
        plain(&case.name)
    );
}

/// Every case that somebody has to look at, with all that is known.
fn troubles(n: usize, device: &DeviceReport, out: &mut String) {
    let mut bad = device
        .cases
        .iter()
        .filter(|case| case.outcome.is_bad())
        .peekable();
    if bad.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "<h2>Failures of {}</h2>", plain(&device.title));
    for case in bad {
        let _ = writeln!(
            out,
            "<section class=\"trouble\" id=\"{}\">\n<h3><code>{}</code></h3>\n<p>{}</p>\n\
             <p class=\"source\">{}</p>\n<p><b>{}</b>: {}</p>",
            anchor(n, &case.name),
            plain(&case.name),
            plain(&case.about),
            plain(&case.source),
            case.outcome.word(),
            plain(case.outcome.why().unwrap_or_default())
        );
        if let Outcome::Failed {
            expected,
            got,
            frames,
            trace,
            ..
        } = &case.outcome
        {
            for (name, text) in [("expected", expected), ("got", got)] {
                if !text.is_empty() {
                    let _ = writeln!(out, "<p>{name}</p>\n<pre>{}</pre>", plain(text));
                }
            }
            for (n, frame) in frames.iter().enumerate() {
                let side = if frame.from_host { ", by the host" } else { "" };
                let _ = writeln!(
                    out,
                    "<p>sent on {}{side}</p>\n<pre>{}</pre>",
                    plain(&frame.port),
                    plain(&frame.hex)
                );
                if let Some(text) = trace.get(n) {
                    let _ = writeln!(out, "<p>its trace</p>\n<pre>{}</pre>", plain(text));
                }
            }
        }
        out.push_str("</section>\n");
    }
}

fn plots(report: &Report, out: &mut String) -> io::Result<()> {
    let measured = |device: &DeviceReport| device.cases.iter().any(|c| !c.measured.is_empty());
    if !report.devices.iter().any(measured) {
        return Ok(());
    }
    out.push_str("<h2>Measured</h2>\n<p>Bars: what was measured; lines: what was to be.</p>\n");
    for device in report.devices.iter().filter(|device| measured(device)) {
        let _ = writeln!(
            out,
            "<h3>{}</h3>\n<div class=\"plots\">",
            plain(&device.title)
        );
        for measured in device.cases.iter().flat_map(|case| &case.measured) {
            let svg = plot::bars(measured).map_err(|e| io::Error::other(e.to_string()))?;
            let _ = writeln!(out, "<figure>{svg}</figure>");
        }
        out.push_str("</div>\n");
    }
    Ok(())
}

/// What was lost while cases ran: most of it was meant to be.
fn drops(report: &Report, out: &mut String) {
    out.push_str(
        "<h2>Drop reasons</h2>\n<table class=\"drops\">\n\
         <tr><th>device</th><th>case</th><th>vport</th><th>reason</th><th>packets</th></tr>\n",
    );
    for device in &report.devices {
        for case in &device.cases {
            for (vport, drops) in &case.drops {
                for (reason, packets) in drops {
                    let _ = writeln!(
                        out,
                        "<tr><td>{}</td><td><code>{}</code></td><td>{}</td><td>{}</td>\
                         <td class=\"number\">{packets}</td></tr>",
                        plain(&device.title),
                        plain(&case.name),
                        plain(vport),
                        plain(reason)
                    );
                }
            }
        }
    }
    out.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conform::render::sample;

    #[test]
    fn nothing_of_a_device_is_taken_for_markup() {
        let page = page(&sample()).unwrap();
        assert!(page.contains("what &lt;it&gt; is about"));
        assert!(page.contains("chain 0: &lt;nothing&gt;"));
        assert!(!page.contains("<it>") && !page.contains("<nothing>") && !page.contains("<with>"));
        assert_eq!(page.matches("data-case=").count(), 6);
        assert!(!page.contains("http://") || page.contains("http://www.w3.org/2000/svg"));
        assert!(!page.contains("<script"));
    }
}
