//! What has to be done to a service's containers.

use std::collections::{BTreeMap, BTreeSet};

/// A container that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Have {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Which of the service's.
    pub number: u32,
    /// What the service was when it was made.
    pub hash: String,
    /// The id of its image.
    pub image: String,
    /// When it was made.
    pub created: u64,
    /// Whether it runs.
    pub running: bool,
}

/// What is wanted of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// What the service is.
    pub hash: String,
    /// The id of its image.
    pub image: String,
    /// How many.
    pub scale: u32,
    /// `--force-recreate`.
    pub force: bool,
    /// `--no-recreate`.
    pub keep: bool,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep(Have),
    /// It is what is wanted and does not run.
    Start(Have),
    /// It is not what is wanted.
    Recreate(Have),
    /// There is none of this number.
    Create(u32),
    /// There are too many.
    Remove(Have),
}

/// PURE: the steps for one service; those that remove come first.
///
/// Two of one number are what a killed command has left between making a container and removing the one it
/// replaces: the one that fits is kept, of several the youngest.
#[must_use]
pub fn converge(have: &[Have], want: &Want) -> Vec<Step> {
    let fits = |one: &Have| !want.force && one.hash == want.hash && one.image == want.image;
    let mut best: BTreeMap<u32, &Have> = BTreeMap::new();
    let mut steps = Vec::new();
    for one in have {
        match best.get_mut(&one.number) {
            None => drop(best.insert(one.number, one)),
            Some(other) => {
                let better = (fits(one), one.created) > (fits(other), other.created);
                let loser = if better { std::mem::replace(other, one) } else { one };
                steps.push(Step::Remove(loser.clone()));
            }
        }
    }
    let scale = usize::try_from(want.scale).unwrap_or(usize::MAX);
    let taken: BTreeSet<u32> = best.keys().copied().take(scale).collect();
    for (number, one) in &best {
        if !taken.contains(number) {
            steps.push(Step::Remove((*one).clone()));
        } else if !fits(one) && !want.keep {
            steps.push(Step::Recreate((*one).clone()));
        } else if one.running {
            steps.push(Step::Keep((*one).clone()));
        } else {
            steps.push(Step::Start((*one).clone()));
        }
    }
    let free = (1..).filter(|number| !taken.contains(number));
    steps.extend(free.take(scale.saturating_sub(taken.len())).map(Step::Create));
    steps.sort_by_key(|step| !matches!(step, Step::Remove(_)));
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Have, Step, Want, converge};

    fn have(number: u32, hash: &str, created: u64, running: bool) -> Have {
        let (id, name) = (format!("{number}-{created}"), format!("p-s-{number}"));
        Have { id, name, number, hash: hash.to_owned(), image: "i".to_owned(), created, running }
    }

    fn want(scale: u32) -> Want {
        Want { hash: "h".to_owned(), image: "i".to_owned(), scale, force: false, keep: false }
    }

    #[test]
    fn what_changed_is_made_anew_and_what_did_not_is_left() {
        let (same, other, off) = (have(1, "h", 1, true), have(2, "old", 2, true), have(3, "h", 3, false));
        let all = [same.clone(), other.clone(), off.clone()];
        let wanted = [
            Step::Keep(same.clone()),
            Step::Recreate(other.clone()),
            Step::Start(off.clone()),
            Step::Create(4),
        ];
        assert_eq!(converge(&all, &want(4)), wanted);
        let keep = Want { keep: true, ..want(2) };
        assert_eq!(converge(&all, &keep), [Step::Remove(off), Step::Keep(same.clone()), Step::Keep(other)]);
        assert_eq!(
            converge(std::slice::from_ref(&same), &Want { force: true, ..want(1) }),
            [Step::Recreate(same)]
        );
    }

    #[test]
    fn of_two_of_one_number_the_fitting_one_stays() {
        let (old, new) = (have(1, "old", 1, true), have(1, "h", 2, false));
        for all in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
            assert_eq!(converge(&all, &want(1)), [Step::Remove(old.clone()), Step::Start(new.clone())]);
        }
    }

    proptest! {
        /// Whatever is there: in the end there are as many as wanted, each number once.
        #[test]
        fn the_steps_end_at_the_scale(
            numbers in prop::collection::vec((1..6u32, any::<bool>(), any::<bool>()), 0..8), scale in 0..6u32,
        ) {
            let all: Vec<Have> = numbers.iter().zip(1..).map(|((number, fits, runs), at)| {
                have(*number, if *fits { "h" } else { "old" }, at, *runs)
            }).collect();
            let steps = converge(&all, &want(scale));
            let mut left: Vec<u32> = steps.iter().filter_map(|step| match step {
                Step::Keep(one) | Step::Start(one) | Step::Recreate(one) => Some(one.number),
                Step::Create(number) => Some(*number),
                Step::Remove(_) => None,
            }).collect();
            left.sort_unstable();
            left.dedup();
            prop_assert_eq!(left.len(), usize::try_from(scale).unwrap());
            let touched = steps.iter().filter(|step| !matches!(step, Step::Create(_))).count();
            prop_assert_eq!(touched, all.len());
        }
    }
}
