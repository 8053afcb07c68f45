//! Any bytes as a netlink message: no panic, and what was understood is understood the same again.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chanio_netlink::parse_anything(bytes));
