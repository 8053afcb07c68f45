//! Rules by which a port chooses the queue of a packet before any hash does, as a NIC's flow
//! director (`ethtool -N … flow-type`).

use crate::flow::{FlowKey, Match};

/// Where a packet goes at its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueChoice {
    /// To this queue pair, counted from 0.
    Queue(u16),
    /// Nowhere.
    Drop,
}

/// One rule. Of its match only what is in the packet's own headers counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRule {
    /// Which packets.
    pub matches: Match,
    /// Where they go.
    pub choice: QueueChoice,
}

/// The rules of one port: the first that covers a packet counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueRules(Vec<QueueRule>);

impl QueueRules {
    /// These, in this order.
    pub fn new(rules: Vec<QueueRule>) -> Self {
        Self(rules)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a packet with these headers goes; none: to where its hash says.
    pub fn choose(&self, key: &FlowKey) -> Option<QueueChoice> {
        let covers = |rule: &&QueueRule| key.masked(&rule.matches.mask) == rule.matches.value;
        self.0.iter().find(covers).map(|rule| rule.choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::RuleSpec;

    fn rule(text: &str, choice: QueueChoice) -> QueueRule {
        let spec: RuleSpec = format!("{text} action drop").parse().unwrap();
        QueueRule {
            matches: spec.matches,
            choice,
        }
    }

    #[test]
    fn the_first_rule_that_covers_a_packet_counts() {
        let rules = QueueRules::new(vec![
            rule(
                "eth_type ipv4 ip_proto udp dst_port 53",
                QueueChoice::Queue(3),
            ),
            rule("eth_type ipv4 ip_proto udp", QueueChoice::Drop),
        ]);
        let key = |text: &str| rule(text, QueueChoice::Drop).matches.value;
        let dns = key("eth_type ipv4 ip_proto udp dst_port 53 src_port 4000");
        assert_eq!(rules.choose(&dns), Some(QueueChoice::Queue(3)));
        let other = key("eth_type ipv4 ip_proto udp dst_port 54");
        assert_eq!(rules.choose(&other), Some(QueueChoice::Drop));
        assert_eq!(
            rules.choose(&key("eth_type ipv4 ip_proto tcp dst_port 53")),
            None
        );
        assert!(QueueRules::default().is_empty());
    }
}
