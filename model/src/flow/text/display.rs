//! A rule as text; reading it back gives the same rule.

use super::line::{Line, NameOfPort};
use super::{action, ct, l2, l3, l4, other, tunnel};
use crate::flow::{Action, Match, RuleSpec};
use std::fmt::{self, Display, Formatter};

/// A rule, or a part of one, that calls ports by their names; see [`RuleSpec::with_names`].
struct Named<'a, T> {
    value: &'a T,
    names: NameOfPort<'a>,
}

impl Action {
    /// The text form with ports by name, without the leading `action`.
    pub fn with_names<'a>(&'a self, names: NameOfPort<'a>) -> impl Display + 'a {
        Named { value: self, names }
    }
}

impl Display for Action {
    /// Without the leading `action`.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.with_names(&|_| None).fmt(f)
    }
}

impl Display for Named<'_, Action> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        action::write(&mut Line::new(f, self.names), self.value)
    }
}

impl Match {
    /// The keys, separated by spaces, with ports by name; nothing at all if every packet is meant.
    pub fn with_names<'a>(&'a self, names: NameOfPort<'a>) -> impl Display + 'a {
        Named { value: self, names }
    }
}

impl Display for Named<'_, Match> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write_match(&mut Line::new(f, self.names), self.value)
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.with_names(&|_| None).fmt(f)
    }
}

fn write_match(line: &mut Line<'_, '_>, matches: &Match) -> fmt::Result {
    l2::write(line, matches)?;
    l3::write(line, matches)?;
    other::write(line, matches)?;
    l4::write(line, matches)?;
    tunnel::write(line, matches)?;
    ct::write(line, matches)
}

impl RuleSpec {
    /// The text form with ports by name; `names` must give names that reading the text back finds
    /// again. A port without one is written as `vport:N`.
    pub fn with_names<'a>(&'a self, names: NameOfPort<'a>) -> impl Display + 'a {
        Named { value: self, names }
    }
}

impl Display for RuleSpec {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.with_names(&|_| None).fmt(f)
    }
}

impl Display for Named<'_, RuleSpec> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let rule = self.value;
        let mut line = Line::new(f, self.names);
        if rule.chain != 0 {
            line.put("chain", rule.chain)?;
        }
        line.put("prio", rule.priority)?;
        write_match(&mut line, &rule.matches)?;
        if rule.cookie != 0 {
            line.put("cookie", format_args!("0x{:x}", rule.cookie))?;
        }
        if rule.idle_timeout != 0 {
            line.put("idle_timeout", rule.idle_timeout)?;
        }
        rule.actions.iter().try_for_each(|action| {
            line.word("action")?;
            action::write(&mut line, action)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VportId;

    #[test]
    fn ports_are_called_by_name_where_they_have_one() {
        let names = |v: VportId| (v.0 == 7).then(|| "web1".to_owned());
        let ports = |name: &str| (name == "web1").then_some(VportId(7));
        let text = "prio 10 in_port web1 dst_mac 02:00:00:00:00:01 cookie 0x5 \
                    action mirror vport:9 action redirect uplink";
        let spec = RuleSpec::parse(text, &ports).unwrap();
        assert_eq!(spec.with_names(&names).to_string(), text);
        let numbered = spec.to_string();
        assert!(numbered.contains("in_port vport:7 "), "{numbered}");
    }
}
