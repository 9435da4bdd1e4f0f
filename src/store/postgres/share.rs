//! Which replica is to have what: each as much as the others, and nothing moves for less than that.
//!
//! What must hold: whoever has at least two more than another hands over half of the difference, and all come to rest then; what nobody
//! holds is taken at once by those that have less than their share, and soon by any.

use std::collections::HashMap;

use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Mine,
    Theirs(Uuid),
    /// Nobody's, or that of one that is gone; and whether it has been for long.
    Free {
        long: bool,
    },
}

/// What is to be done about a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Take,
    Ask,
    Give(Uuid),
}

/// A bundle as it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) whose: Whose,
    pub(super) wanted_by: Option<Uuid>,
    pub(super) busy: bool,
}

/// What `me` is to do, where `live` replicas work.
pub(super) fn plan(me: Uuid, live: &[Uuid], bundles: &[Stand]) -> Vec<(usize, Step)> {
    let share = bundles.len().div_ceil(live.len().max(1));
    // What is waited for counts as handed over.
    let mut counts: HashMap<Uuid, usize> = live.iter().map(|replica| (*replica, 0)).collect();
    for bundle in bundles {
        let holder = match (bundle.whose, bundle.wanted_by) {
            (Whose::Free { .. }, _) => continue,
            (_, Some(wanted_by)) => wanted_by,
            (Whose::Mine, None) => me,
            (Whose::Theirs(holder), None) => holder,
        };
        *counts.entry(holder).or_default() += 1;
    }
    let mut mine = counts.remove(&me).unwrap_or_default();
    let mut steps = Vec::new();
    for (number, bundle) in bundles.iter().enumerate() {
        match (bundle.whose, bundle.wanted_by) {
            (Whose::Free { long }, _) if mine < share || long => {
                mine += 1;
                steps.push((number, Step::Take));
            }
            (Whose::Mine, Some(wanted_by)) if !bundle.busy => steps.push((number, Step::Give(wanted_by))),
            _ => {}
        }
    }
    // The same one for all who ask, where several have as many.
    let most = counts.into_iter().filter(|(replica, _)| live.contains(replica)).max_by_key(|(replica, count)| (*count, *replica));
    if let Some((replica, count)) = most
        && bundles.iter().all(|bundle| !matches!(bundle.whose, Whose::Free { .. }))
    {
        let of_it = |(_, bundle): &(usize, &Stand)| bundle.whose == Whose::Theirs(replica) && bundle.wanted_by.is_none();
        let asked = bundles.iter().enumerate().rev().filter(of_it).take(count.saturating_sub(mine) / 2);
        steps.extend(asked.map(|(number, _)| (number, Step::Ask)));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const THIRD: Uuid = Uuid::from_u128(3);
    const FREE: Whose = Whose::Free { long: false };

    fn stands(whose: &[Whose]) -> Vec<Stand> {
        whose.iter().map(|whose| Stand { whose: *whose, wanted_by: None, busy: false }).collect()
    }

    #[test]
    fn one_that_is_alone_takes_everything() {
        assert_eq!(plan(ME, &[ME], &stands(&[FREE; 3])), [(0, Step::Take), (1, Step::Take), (2, Step::Take)]);
        assert_eq!(plan(ME, &[ME], &stands(&[Whose::Mine; 3])), []);
    }

    #[test]
    fn each_takes_no_more_than_its_share_unless_nobody_wants_it() {
        assert_eq!(plan(ME, &[ME, OTHER], &stands(&[FREE; 3])), [(0, Step::Take), (1, Step::Take)]);
        let long = Whose::Free { long: true };
        assert_eq!(plan(ME, &[ME, OTHER], &stands(&[Whose::Mine, Whose::Mine, long])), [(2, Step::Take)]);
    }

    #[test]
    fn who_comes_later_asks_for_its_share_once_and_gets_what_is_not_busy() {
        let mut bundles = stands(&[Whose::Theirs(OTHER); 5]);
        assert_eq!(plan(ME, &[ME, OTHER], &bundles), [(4, Step::Ask), (3, Step::Ask)]);
        bundles[3].wanted_by = Some(ME);
        bundles[4].wanted_by = Some(ME);
        assert_eq!(plan(ME, &[ME, OTHER], &bundles), []);
        for bundle in &mut bundles {
            bundle.whose = Whose::Mine;
        }
        bundles[3].busy = true;
        // The same, seen by the one that is asked; the third one's turn comes when it asks.
        for bundle in &mut bundles[3..] {
            bundle.wanted_by = Some(OTHER);
        }
        assert_eq!(plan(ME, &[ME, OTHER, THIRD], &bundles), [(4, Step::Give(OTHER))]);
    }

    #[test]
    fn a_difference_of_one_moves_nothing_and_no_more_replicas_than_queues_are_at_work() {
        assert_eq!(plan(ME, &[ME, OTHER], &stands(&[Whose::Mine, Whose::Theirs(OTHER), Whose::Theirs(OTHER)])), []);
        assert_eq!(plan(ME, &[ME, OTHER, THIRD], &stands(&[Whose::Theirs(OTHER), Whose::Theirs(THIRD)])), []);
    }

    #[test]
    fn nothing_is_asked_for_while_something_is_free_and_what_is_gone_counts_for_nobody() {
        let bundles = stands(&[Whose::Theirs(OTHER), Whose::Theirs(OTHER), Whose::Theirs(OTHER), FREE]);
        assert_eq!(plan(ME, &[ME, OTHER], &bundles), [(3, Step::Take)]);
        // Nobody may take what the third one holds yet, which is seen no more.
        assert_eq!(plan(ME, &[ME, OTHER], &stands(&[Whose::Theirs(THIRD); 4])), []);
    }
}
