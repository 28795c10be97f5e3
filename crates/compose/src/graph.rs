//! Who comes before whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::service::Service;

/// PURE: all services in groups, each behind those that it depends on.
///
/// # Errors
/// [`Error::Circle`].
pub fn order(services: &BTreeMap<String, Service>) -> Result<Vec<Vec<String>>> {
    let edges: BTreeMap<&str, Vec<&str>> = services
        .iter()
        .map(|(name, service)| {
            let needs = service.depends_on.iter().map(|need| need.service.as_str());
            (name.as_str(), needs.filter(|need| services.contains_key(*need)).collect())
        })
        .collect();
    sort(&edges)
}

fn sort(edges: &BTreeMap<&str, Vec<&str>>) -> Result<Vec<Vec<String>>> {
    let mut done: Vec<Vec<String>> = Vec::new();
    let mut left: BTreeMap<&str, Vec<&str>> = edges.clone();
    while !left.is_empty() {
        let ready: Vec<&str> = left
            .iter()
            .filter(|(_, needs)| needs.iter().all(|need| !left.contains_key(need)))
            .map(|(name, _)| *name)
            .collect();
        if ready.is_empty() {
            return Err(Error::Circle(circle(&left)));
        }
        left.retain(|name, _| !ready.contains(name));
        done.push(ready.into_iter().map(str::to_owned).collect());
    }
    Ok(done)
}

/// One of the circles, where each has somebody before it.
fn circle(left: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut at = left.keys().next().copied();
    while let Some(name) = at {
        if let Some(start) = path.iter().position(|before| *before == name) {
            let mut names: Vec<String> = path.split_off(start).into_iter().map(str::to_owned).collect();
            names.push(name.to_owned());
            return names;
        }
        path.push(name);
        at = left.get(name).and_then(|needs| needs.iter().find(|need| left.contains_key(*need)).copied());
    }
    Vec::new()
}

/// PURE: the named services and, unless `alone`, all that they depend on; no names: all.
///
/// # Errors
/// [`Error::NoService`].
pub fn chosen(
    services: &BTreeMap<String, Service>,
    names: &[String],
    alone: bool,
) -> Result<BTreeSet<String>> {
    if names.is_empty() {
        return Ok(services.keys().cloned().collect());
    }
    let mut found = BTreeSet::new();
    let mut left: Vec<String> = names.to_vec();
    while let Some(name) = left.pop() {
        let Some(service) = services.get(&name) else {
            // What is not required may be missing; what was named may not.
            if names.contains(&name) {
                return Err(Error::NoService(name));
            }
            continue;
        };
        if found.insert(name) && !alone {
            left.extend(service.depends_on.iter().map(|need| need.service.clone()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::sort;

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    proptest! {
        /// Whatever the edges: either all stand behind what they need, or the circle named is one.
        #[test]
        fn order_or_a_circle(pairs in prop::collection::vec((0..8usize, 0..8usize), 0..16)) {
            let mut edges: BTreeMap<&str, Vec<&str>> = NAMES.iter().map(|name| (*name, Vec::new())).collect();
            for (from, to) in pairs {
                edges.get_mut(NAMES[from]).unwrap().push(NAMES[to]);
            }
            match sort(&edges) {
                Ok(order) => {
                    prop_assert_eq!(order.iter().flatten().count(), NAMES.len());
                    let at = |name: &str| order.iter().position(|group| group.iter().any(|n| n == name)).unwrap();
                    for (name, needs) in &edges {
                        for need in needs {
                            prop_assert!(at(need) < at(name));
                        }
                    }
                }
                Err(crate::Error::Circle(names)) => {
                    prop_assert!(names.len() >= 2 && names.first() == names.last());
                    for pair in names.windows(2) {
                        prop_assert!(edges[pair[0].as_str()].contains(&pair[1].as_str()));
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}
