//! Explicit congestion notification through tunnels (RFC 6040), as include/net/inet_ecn.h has it.

use crate::DropReason;

const MASK: u8 = 3;
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;

/// The outer header's type of service: DSCP as given, ECN as the inner packet's, except that a
/// congestion mark is not copied out (RFC 3168 §9.1.1's full functionality, which is what Linux
/// does; RFC 6040's normal mode would copy it).
pub(super) fn outer_tos(dscp: u8, inner: u8) -> u8 {
    let ecn = match inner & MASK {
        CE => ECT_0,
        ecn => ecn,
    };
    dscp & !MASK | ecn
}

/// What the inner packet's type of service becomes when the outer header is taken off; `None`
/// leaves it as it is.
pub(super) fn inner_tos(outer: u8, inner: u8) -> Result<Option<u8>, DropReason> {
    match (outer & MASK, inner & MASK) {
        (CE, NOT_ECT) => Err(DropReason::TunnelEcn),
        (CE, ECT_0 | ECT_1) => Ok(Some(inner | CE)),
        (ECT_1, ECT_0) => Ok(Some(inner & !MASK | ECT_1)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decapsulation_follows_the_table_of_rfc_6040() {
        // Figure 4, inner by rows, outer Not-ECT, ECT(0), ECT(1), CE by columns.
        let drop = Err(DropReason::TunnelEcn);
        let rows = [
            (NOT_ECT, [Ok(NOT_ECT), Ok(NOT_ECT), Ok(NOT_ECT), drop]),
            (ECT_0, [Ok(ECT_0), Ok(ECT_0), Ok(ECT_1), Ok(CE)]),
            (ECT_1, [Ok(ECT_1), Ok(ECT_1), Ok(ECT_1), Ok(CE)]),
            (CE, [Ok(CE); 4]),
        ];
        for (inner, want) in rows {
            for (outer, want) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(want) {
                let inner = 0xb8 | inner;
                let got = inner_tos(0x40 | outer, inner).map(|tos| tos.unwrap_or(inner));
                assert_eq!(got, want.map(|ecn| 0xb8 | ecn), "{outer} {inner}");
            }
        }
    }

    #[test]
    fn encapsulation_resets_the_congestion_mark() {
        assert_eq!(outer_tos(0xb8, 0x03), 0xba);
        assert_eq!(outer_tos(0xbb, 0x01), 0xb9);
        assert_eq!(outer_tos(0xbb, 0xfc), 0xb8);
    }
}
