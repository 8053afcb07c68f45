//! A flow rule as a user types it: refused with a reason, or a rule that is well formed and reads
//! back from what it prints.

#![no_main]

use chanio_model::VportId;
use chanio_model::flow::{FlowKey, RuleSpec, Seen};
use libfuzzer_sys::fuzz_target;

fn ports(name: &str) -> Option<VportId> {
    match name {
        "web1" => Some(VportId(1)),
        "web2" => Some(VportId(2)),
        _ => None,
    }
}

fuzz_target!(|text: &str| {
    let spec = match RuleSpec::parse(text, &ports) {
        Ok(spec) => spec,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    spec.check().expect("a rule that was read is well formed");
    let printed = spec.to_string();
    assert_eq!(RuleSpec::parse(&printed, &ports).as_ref(), Ok(&spec), "{printed}");
    let _ = spec.matches.covers(Seen::plain(&FlowKey::default()));
});
