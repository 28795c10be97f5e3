//! What others' runtimes were caught with, tried on `cata-runtime`: each published hole, with somebody who races
//! where it was a race.

use cata_tests::harness::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![]
}
