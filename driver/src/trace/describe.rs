//! A trace in words.

use crate::nic::TraceStep;

/// A trace for people, indented by how deep in the tables it is.
pub fn describe(steps: &[TraceStep]) -> String {
    let mut text = String::new();
    for step in steps {
        text += &match step {
            TraceStep::Lookup {
                chain,
                headers,
                rule,
                rule_text,
            } => {
                let taken = match (rule, rule_text) {
                    (Some(id), Some(rule)) => format!("rule {id}: {rule}"),
                    (Some(id), None) => format!("rule {id}"),
                    (None, _) => format!(
                        "no rule in chain {chain}: to the host, on the in-port's representor"
                    ),
                };
                format!("chain {chain}: {headers}\n    {taken}\n")
            }
            TraceStep::Action { action } => format!("        {action}\n"),
            TraceStep::Rewritten { head, len } => {
                format!("            {len} bytes: {}\n", digits(head))
            }
            TraceStep::Output {
                port,
                representor,
                head,
            } => {
                let side = if *representor {
                    " (its representor)"
                } else {
                    ""
                };
                format!("-> {port}{side}: {}\n", digits(head))
            }
            TraceStep::Lost {
                port,
                reason,
                explanation,
            } => format!("lost at {port}: {reason}. {explanation}\n"),
        };
    }
    text
}

/// The first bytes, as many as tell the headers.
fn digits(head: &[u8]) -> String {
    const SHOWN: usize = 64;
    let shown: String = head
        .iter()
        .take(SHOWN)
        .map(|b| format!("{b:02x}"))
        .collect();
    let more = if head.len() > SHOWN { "…" } else { "" };
    shown + more
}
