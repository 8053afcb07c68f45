//! Who gets how much of a rate.

use std::cmp::Reverse;

/// What one child of a node asks for. All rates in the same unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    /// Guaranteed, as far as it is asked for.
    pub share: f64,
    /// Asked for; may be infinite.
    pub want: f64,
    /// Relative to others of its priority; above zero.
    pub weight: f64,
    /// The highest is served first.
    pub priority: u32,
}

impl Claim {
    fn floor(&self) -> f64 {
        self.share.min(self.want)
    }
}

/// How often bounds are found out one after the other before it is cheaper to search.
const ROUNDS: usize = 32;

/// Divides `capacity`: into `grants` goes what each of the claims gets, in their order.
///
/// First comes what is guaranteed, cut in proportion if it is more than there is. Then, from the
/// highest priority down, each gets what it asks for, or if that is too much for those of one
/// priority, a rate in proportion to its weight, but not less than guaranteed and not more than
/// asked for. (devlink-port.rst: strict priority among siblings, and within one priority weighted
/// fair queueing.)
pub fn divide(capacity: f64, claims: &[Claim], scratch: &mut Vec<u32>, grants: &mut Vec<f64>) {
    grants.clear();
    grants.resize(claims.len(), 0.0);
    let mut floors: f64 = claims.iter().map(Claim::floor).sum();
    if floors >= capacity {
        let cut = if floors > 0.0 { capacity / floors } else { 0.0 };
        for (grant, claim) in grants.iter_mut().zip(claims) {
            *grant = claim.floor() * cut;
        }
        return;
    }
    scratch.clear();
    scratch.extend(0..claims.len() as u32);
    let priority = |i: &u32| claims[*i as usize].priority;
    scratch.sort_unstable_by_key(|i| Reverse(priority(i)));
    let mut left = capacity;
    for group in scratch.chunk_by_mut(|a, b| priority(a) == priority(b)) {
        let of = |i: &u32| &claims[*i as usize];
        floors -= group.iter().map(|i| of(i).floor()).sum::<f64>();
        let mine = (left - floors).max(0.0);
        let wanted: f64 = group.iter().map(|i| of(i).want).sum();
        if wanted <= mine {
            for i in group {
                grants[*i as usize] = claims[*i as usize].want;
            }
            left -= wanted;
        } else {
            fill(mine, group, claims, grants);
            left -= mine;
        }
    }
}

/// Divides all of `capacity` among claims that want more: the level at which weights times level,
/// within bounds, add up to it. Each round takes out those that the level of the rest leaves out
/// of bounds on the side where there is more to correct.
fn fill(capacity: f64, group: &mut [u32], claims: &[Claim], grants: &mut [f64]) {
    let mut left = capacity;
    let mut open = group.len();
    for _ in 0..ROUNDS {
        let rest = &mut group[..open];
        let weights: f64 = rest.iter().map(|i| claims[*i as usize].weight).sum();
        let level = left / weights;
        let mut correction = 0.0;
        for i in rest.iter() {
            let claim = &claims[*i as usize];
            let fair = level * claim.weight;
            let bounded = fair.clamp(claim.floor(), claim.want);
            grants[*i as usize] = bounded;
            correction += bounded - fair;
        }
        let out_of_bounds = |i: u32| {
            let claim = &claims[i as usize];
            let fair = level * claim.weight;
            let low = correction >= 0.0 && fair < claim.floor();
            low || (correction <= 0.0 && fair > claim.want)
        };
        // Those that are settled go to the end.
        let mut kept = 0;
        for at in 0..open {
            if out_of_bounds(rest[at]) {
                left -= grants[rest[at] as usize];
            } else {
                rest.swap(kept, at);
                kept += 1;
            }
        }
        if kept == open || kept == 0 {
            return;
        }
        open = kept;
    }
    search(left.max(0.0), &group[..open], claims, grants);
}

/// The same by halving the interval in which the level lies.
fn search(capacity: f64, group: &[u32], claims: &[Claim], grants: &mut [f64]) {
    let at = |level: f64, i: u32| {
        let claim = &claims[i as usize];
        (level * claim.weight).clamp(claim.floor(), claim.want)
    };
    let lightest = group.iter().map(|i| claims[*i as usize].weight);
    let (mut low, mut high) = (0.0, capacity / lightest.fold(f64::INFINITY, f64::min));
    for _ in 0..64 {
        let level = (low + high) / 2.0;
        let sum: f64 = group.iter().map(|i| at(level, *i)).sum();
        if sum < capacity {
            low = level;
        } else {
            high = level;
        }
    }
    for i in group {
        grants[*i as usize] = at(low, *i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grants(capacity: f64, claims: &[Claim]) -> Vec<f64> {
        let mut grants = Vec::new();
        divide(capacity, claims, &mut Vec::new(), &mut grants);
        grants
    }

    fn claim(share: f64, want: f64, weight: f64) -> Claim {
        Claim {
            share,
            want,
            weight,
            priority: 0,
        }
    }

    #[test]
    fn by_weight_between_share_and_want() {
        let all = f64::INFINITY;
        let two = [claim(0.0, all, 3.0), claim(0.0, all, 1.0)];
        assert_eq!(grants(100.0, &two), [75.0, 25.0]);
        let guaranteed = [claim(0.0, all, 3.0), claim(40.0, all, 1.0)];
        assert_eq!(grants(100.0, &guaranteed), [60.0, 40.0]);
        let modest = [
            claim(0.0, all, 1.0),
            claim(50.0, 10.0, 9.0),
            claim(0.0, all, 1.0),
        ];
        assert_eq!(grants(100.0, &modest), [45.0, 10.0, 45.0]);
        assert_eq!(
            grants(30.0, &[claim(40.0, all, 1.0), claim(20.0, all, 1.0)]),
            [20.0, 10.0]
        );
        assert_eq!(grants(0.0, &two), [0.0, 0.0]);
        assert_eq!(grants(5.0, &[]), [0.0; 0]);
        let enough = [claim(0.0, 10.0, 1.0), claim(0.0, 20.0, 1.0)];
        assert_eq!(grants(all, &enough), [10.0, 20.0]);
    }

    #[test]
    fn priority_before_weight_but_not_before_what_is_guaranteed() {
        let all = f64::INFINITY;
        let high = Claim {
            priority: 5,
            ..claim(0.0, all, 1.0)
        };
        let low = claim(30.0, all, 100.0);
        assert_eq!(grants(100.0, &[low, high]), [30.0, 70.0]);
        let satisfied = Claim { want: 20.0, ..high };
        assert_eq!(grants(100.0, &[low, satisfied]), [80.0, 20.0]);
    }

    /// By its definition: priorities one after the other, and in each the level found by search.
    fn reference(capacity: f64, claims: &[Claim]) -> Vec<f64> {
        let mut out: Vec<f64> = claims.iter().map(|c| c.share.min(c.want)).collect();
        let floors: f64 = out.iter().sum();
        if floors >= capacity {
            let cut = |f: &f64| {
                if floors > 0.0 {
                    f * capacity / floors
                } else {
                    0.0
                }
            };
            return out.iter().map(cut).collect();
        }
        let mut priorities: Vec<_> = claims.iter().map(|c| c.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        for priority in priorities.into_iter().rev() {
            let members: Vec<usize> = (0..claims.len())
                .filter(|i| claims[*i].priority == priority)
                .collect();
            let others: f64 = (0..claims.len())
                .filter(|i| !members.contains(i))
                .map(|i| out[i])
                .sum();
            let at = |level: f64, i: usize| {
                let c = &claims[i];
                (level * c.weight).clamp(c.share.min(c.want), c.want)
            };
            let (mut low, mut high) = (0.0, 1e30);
            for _ in 0..300 {
                let level = (low + high) / 2.0;
                let sum: f64 = members.iter().map(|i| at(level, *i)).sum();
                if sum <= capacity - others {
                    low = level
                } else {
                    high = level
                }
            }
            for i in members {
                out[i] = at(low, i);
            }
        }
        out
    }

    fn claims() -> impl Strategy<Value = Vec<Claim>> {
        let want = prop_oneof![3 => 0.0f64..200.0, 1 => Just(f64::INFINITY)];
        let one = (0.0f64..60.0, want, 1u32..200, 0u32..3, any::<bool>());
        prop::collection::vec(
            one.prop_map(|(share, want, weight, priority, guaranteed)| Claim {
                share: if guaranteed { share } else { 0.0 },
                want,
                weight: f64::from(weight),
                priority,
            }),
            0..60,
        )
    }

    proptest! {
        #[test]
        fn as_the_definition_has_it(capacity in 0.0f64..3000.0, claims in claims()) {
            let got = grants(capacity, &claims);
            let want = reference(capacity, &claims);
            for (got, want) in got.iter().zip(&want) {
                prop_assert!((got - want).abs() < 1e-6 * (1.0 + capacity), "{got} {want}");
            }
        }

        /// Nothing is given twice, and nothing kept back that somebody asks for.
        #[test]
        fn all_that_is_asked_for_and_there_is(capacity in 0.0f64..3000.0, claims in claims()) {
            let sum: f64 = grants(capacity, &claims).iter().sum();
            let wanted: f64 = claims.iter().map(|c| c.want).sum();
            prop_assert!((sum - capacity.min(wanted)).abs() < 1e-6 * (1.0 + capacity));
        }

        #[test]
        fn the_search_agrees(capacity in 1.0f64..3000.0, claims in claims()) {
            let same: Vec<_> = claims.iter().map(|c| Claim { priority: 0, share: 0.0, ..*c }).collect();
            let wanted: f64 = same.iter().map(|c| c.want).sum();
            prop_assume!(wanted > capacity);
            let group: Vec<u32> = (0..same.len() as u32).collect();
            let mut found = vec![0.0; same.len()];
            search(capacity, &group, &same, &mut found);
            for (a, b) in found.iter().zip(grants(capacity, &same)) {
                prop_assert!((a - b).abs() < 1e-6 * (1.0 + capacity), "{a} {b}");
            }
        }
    }
}
