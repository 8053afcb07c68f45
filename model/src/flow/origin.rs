//! Whose a rule is.

use super::MAX_CHAIN;

/// Whose a rule is. What one asks for does not mix with what another asks for: a packet that begins
/// in chain 0 meets the rules of the first, and those of the next only if none of them takes it; all
/// other chains are each one's own, whatever their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Asked for through the NIC's own control.
    #[default]
    Control,
    /// A filter of the kernel's tc on a representor.
    Tc,
    /// What a bridge of the kernel's knows of addresses behind representors.
    Bridge,
}

impl Origin {
    /// The number that a chain of its own has in the tables; chain 0 is everybody's.
    #[inline]
    pub fn chain(self, own: u32) -> u32 {
        const { assert!(MAX_CHAIN < 1 << 28) };
        match own {
            0 => 0,
            own => (self as u32) << 28 | own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn only_the_first_chain_is_shared() {
        let all = [Origin::Control, Origin::Tc, Origin::Bridge];
        let numbers = |own| all.map(|origin| origin.chain(own));
        assert_eq!(numbers(0), [0; 3]);
        let others: BTreeSet<_> = numbers(1).into_iter().chain(numbers(MAX_CHAIN)).collect();
        assert_eq!(others.len(), 6);
        assert!(others.iter().all(|chain| chain & MAX_CHAIN != 0));
    }
}
