//! Every well-formed rule can be written as text and read back, and no text is too strange.

mod common;

use chanio_model::flow::{RuleSpec, RuleTextError};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reading_what_was_written(spec in common::spec(6)) {
        prop_assert_eq!(spec.check(), Ok(()));
        let text = spec.to_string();
        prop_assert_eq!(text.parse::<RuleSpec>(), Ok(spec), "{}", text);
    }

    #[test]
    fn words_in_any_order_are_read_or_refused(
        words in proptest::collection::vec(
            prop::sample::select(&[
                "prio", "in_port", "src_mac", "eth_type", "vlan_id", "vlan_prio", "src_ip",
                "dst_ip", "ip_proto", "src_port", "cookie", "action", "drop", "redirect", "uplink",
                "vport:7", "ipv4", "ipv6", "tcp", "10", "0x10", "none", "any", "10.0.0.1/8",
                "::/0", "1/1", "/", "0x", "-1", "99999999999999999999", "é",
            ][..]),
            0..30,
        ),
    ) {
        if let Ok(spec) = words.join(" ").parse::<RuleSpec>() {
            prop_assert_eq!(spec.check(), Ok(()));
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let result: Result<RuleSpec, RuleTextError> = text.parse();
        if let Err(error) = result {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
