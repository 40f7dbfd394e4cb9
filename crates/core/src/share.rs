//! How the names share the workers: which name's jobs a claim takes, and how many of each.
//!
//! Names have weights. A claim visits the names in a random order drawn by weight and takes from each at most its share
//! of the slots; what is left over goes round once more without that bound. So a heavy name gets more, a light one gets
//! its turn, and nothing starves: each visited name with work gets at least one slot while slots last. The order depends
//! on the seed and the name alone, so every store takes the same jobs for the same claim, and a name without work costs
//! nothing but its draw.

use crate::Name;

/// A name that a claim may take from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The name.
    pub name: Name,
    /// Its weight, 1 to 10,000.
    pub weight: u32,
}

/// The names of one claim in the order to visit them, each with the slots of its first visit.
///
/// `weight_total` is the sum over all names that the pool asked for, also those left out here because they have no work.
/// The first visit of each takes at most the number given; a second round in the same order fills what is left.
pub fn plan(mut shares: Vec<Share>, weight_total: u64, slots: u32, seed: u64) -> Vec<(Name, u32)> {
    if let [only] = shares.as_slice() {
        return vec![(only.name.clone(), slots)];
    }
    let key = |share: &Share| draw(seed, share.name.as_str()) / f64::from(share.weight.max(1));
    shares.sort_by(|a, b| key(a).total_cmp(&key(b)).then_with(|| a.name.cmp(&b.name)));
    shares
        .into_iter()
        .map(|share| {
            let part = u64::from(slots) * u64::from(share.weight.max(1)) / weight_total.max(1);
            (share.name, u32::try_from(part).unwrap_or(slots).clamp(1, slots.max(1)))
        })
        .collect()
}

/// An exponentially distributed draw for a name: dividing it by the weight and sorting gives a weighted random order
/// (Efraimidis and Spirakis).
fn draw(seed: u64, name: &str) -> f64 {
    // FNV-1a over the name, then splitmix64: stable over releases and processes, unlike the standard library's hasher.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let mut mixed = hash ^ seed;
    mixed = mixed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let unit = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -unit.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[(&str, u32)]) -> Vec<Share> {
        weights.iter().map(|(name, weight)| Share { name: Name::new(name).unwrap(), weight: *weight }).collect()
    }

    #[test]
    fn first_place_goes_by_weight() {
        let names = shares(&[("heavy", 3000), ("light", 1000)]);
        let first = (0..10_000).filter(|seed| plan(names.clone(), 4000, 1, *seed)[0].0.as_str() == "heavy").count();
        assert!((7300..7700).contains(&first), "{first} of 10000");
    }

    #[test]
    fn every_name_gets_a_slot_while_slots_last() {
        let plan = plan(shares(&[("bulk", 10_000), ("tiny", 1)]), 10_001, 10, 7);
        assert!(plan.iter().all(|(_, slots)| *slots >= 1), "{plan:?}");
    }

    #[test]
    fn order_does_not_depend_on_the_other_names() {
        for seed in 0..100 {
            let all: Vec<Name> =
                plan(shares(&[("a", 1), ("b", 5), ("c", 2)]), 8, 4, seed).into_iter().map(|(name, _)| name).collect();
            let some: Vec<Name> =
                plan(shares(&[("a", 1), ("c", 2)]), 8, 4, seed).into_iter().map(|(name, _)| name).collect();
            let filtered: Vec<Name> = all.into_iter().filter(|name| name.as_str() != "b").collect();
            assert_eq!(filtered, some);
        }
    }
}
