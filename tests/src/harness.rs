//! The list of tests, what each needs, and how it enters its world.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::fs::MemfdFlags;

use crate::world::{Setup, World};
use crate::{cache, kernel, leak, seed, world};

/// The kind of name test worlds have; see [`world::sweep`].
const KIND: &str = "cata-test";

/// A world that takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(480);

/// About how many seconds a test takes in the lab that says nothing of it.
const LIGHT: u32 = 10;

/// What takes longer there is left to the host where one machine would have to play all of them.
const LONG: u32 = 300;

/// So many tests are named at the end with the time they took.
const SLOWEST: usize = 10;

/// How often a test that failed is played again on CI: an emulated machine on a busy host now and then does not come
/// up, or its clock runs away.
const AGAIN: usize = 2;

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    name: &'static str,
    run: fn(&World),
    images: &'static [&'static str],
    needs: &'static [&'static str],
    kernel: bool,
    /// About how many seconds it takes in the lab, if it is played there.
    lab: Option<u32>,
    leaks_checked: bool,
    online: bool,
}

impl Test {
    /// A test with the `busybox` image in its world.
    #[must_use]
    pub const fn new(name: &'static str, run: fn(&World)) -> Self {
        Self {
            name,
            run,
            images: &["busybox"],
            needs: &[],
            kernel: false,
            lab: None,
            leaks_checked: true,
            online: false,
        }
    }

    /// The images in its world instead.
    #[must_use]
    pub const fn images(mut self, images: &'static [&'static str]) -> Self {
        self.images = images;
        self
    }

    /// Programs it needs besides `cata`.
    #[must_use]
    pub const fn needs(mut self, needs: &'static [&'static str]) -> Self {
        self.needs = needs;
        self
    }

    /// The distribution's kernel in its world too.
    #[must_use]
    pub const fn with_kernel(mut self) -> Self {
        self.kernel = true;
        self
    }

    /// Played in the lab too: on cgroup v2 alone, with a KVM that works.
    #[must_use]
    pub const fn also_in_lab(mut self) -> Self {
        if self.lab.is_none() {
            self.lab = Some(LIGHT);
        }
        self
    }

    /// The same for one that takes about so many seconds there. Where the lab is several machines side by side, tests
    /// are dealt to them by this.
    #[must_use]
    pub const fn also_in_lab_for(mut self, seconds: u32) -> Self {
        self.lab = Some(seconds);
        self
    }

    /// Fetches from the machine's package registries, over its network: played only where `CATA_REGISTRIES` is set
    /// (`cargo xtask test --registries`), and takes its time.
    #[must_use]
    pub const fn online(mut self) -> Self {
        self.online = true;
        self
    }

    /// For a test of the worlds themselves, which has no engine to ask.
    #[must_use]
    pub const fn without_engine(mut self) -> Self {
        self.images = &[];
        self.leaks_checked = false;
        self
    }

    /// What it needs and the machine lacks.
    fn missing(&self) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("needs root".to_owned());
        }
        let lacking: Vec<&str> =
            self.needs.iter().copied().filter(|program| !is_installed(program)).collect();
        (!lacking.is_empty()).then(|| format!("needs {}", lacking.join(", ")))
    }

    /// Inside: the test proper.
    fn play(&self, world: &World) {
        if let Err(error) = seed::seed(world, self.images) {
            panic!("cannot seed the world: {error:#}");
        }
        if self.kernel
            && let Err(error) = kernel::seed(world)
        {
            panic!("cannot seed the world: {error:#}");
        }
        (self.run)(world);
        if self.leaks_checked {
            leak::assert_none(world);
        }
    }

    /// Outside: a world for it, and what it said if it failed.
    fn enter(&self) -> Result<(), Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{KIND}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut output = File::from(rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)?);
        let setup = Setup {
            dir: cache::dir()?.join("worlds").join(&name),
            name,
            args: Vec::new(),
            env: vec![("CATA_TEST".into(), self.name.into())],
            deadline: Some(crate::command::scaled(if self.online { DEADLINE * 10 } else { DEADLINE })),
            linger: false,
            output: Some(output.try_clone()?),
            shares_network: self.online,
        };
        let status = setup.run()?;
        if status.success() {
            return Ok(());
        }
        let mut said = String::new();
        output.seek(SeekFrom::Start(0))?;
        output.read_to_string(&mut said)?;
        Err(format!("{status}\n{said}").into())
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<_> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin".into(), "/sbin".into()]);
    dirs.iter().any(|dir| dir.join(program).is_file())
}

/// The whole program: lists and runs `tests`, or, inside a world, the one test it was made for.
///
/// A test whose needs are not met is ignored, with its reason printed; where `CI` is set it fails instead.
#[must_use]
pub fn main(tests: &[Test]) -> ExitCode {
    // `cata` leaves ignored what it was started with, and tests send these.
    cata_sys::disposition::heed_ends();
    match world::enter() {
        Ok(None) => {}
        Ok(Some(world)) => {
            let wanted = std::env::var("CATA_TEST").unwrap_or_default();
            let Some(test) = tests.iter().find(|test| test.name == wanted) else { return ExitCode::from(2) };
            test.play(&world);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(&format!("{error:#}"));
            return ExitCode::from(125);
        }
    }

    let mut arguments = Arguments::from_args();
    // Tests mostly wait, for the kernel and for timers.
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    arguments.test_threads.get_or_insert(cores * 2);
    let strict = std::env::var_os("CI").is_some_and(|value| value != "false" && !value.is_empty());
    if !arguments.list {
        world::sweep();
    }
    let took: Arc<Mutex<Vec<(Duration, &'static str)>>> = Arc::default();
    let again: Arc<Mutex<()>> = Arc::default();
    // The lab is slow: there only what is different there is played, unless asked for by name.
    let chosen = std::env::var_os("CATA_LAB").is_some() && arguments.filter.is_none();
    let online = std::env::var_os("CATA_REGISTRIES").is_some();
    let mut tests: Vec<Test> = tests.iter().filter(|test| test.online == online).copied().collect();
    if chosen {
        let part = std::env::var("CATA_LAB_PART").ok().and_then(|text| {
            let (part, parts) = text.split_once('/')?;
            Some((part.parse().ok()?, parts.parse().ok()?))
        });
        tests = dealt(tests, part.unwrap_or((0, 1)));
    }
    let trials = tests.into_iter().map(|test| {
        let (took, again) = (Arc::clone(&took), Arc::clone(&again));
        let missing = test.missing();
        if let Some(reason) = missing.as_ref().filter(|_| !arguments.list) {
            say(&format!("skipped: {}: {reason}", test.name));
        }
        let ignored = missing.is_some() && !strict;
        let run = move || match &missing {
            Some(reason) => Err(Failed::from(reason)),
            None => {
                let start = Instant::now();
                let mut result = test.enter();
                for _ in 0..if strict { AGAIN } else { 0 } {
                    let Err(failed) = &result else { break };
                    // Whoever reads the log is told. One at a time: what failed for want of the processor must
                    // not fail for that again.
                    let why = failed.message().unwrap_or_default();
                    say(&format!("played once more: {}, which failed: {why}", test.name));
                    let _one = again.lock().unwrap_or_else(PoisonError::into_inner);
                    result = test.enter();
                }
                took.lock().unwrap_or_else(PoisonError::into_inner).push((start.elapsed(), test.name));
                result
            }
        };
        Trial::test(test.name, run).with_ignored_flag(ignored)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let mut took = took.lock().unwrap_or_else(PoisonError::into_inner);
    took.sort_unstable_by(|a, b| b.cmp(a));
    if took.len() > SLOWEST {
        say("slowest:");
        took.iter()
            .take(SLOWEST)
            .for_each(|(time, name)| say(&format!("{:>6.1} s  {name}", time.as_secs_f64())));
    }
    conclusion.exit_code()
}

/// Of the lab's tests those of one of several machines that play them side by side: about as much for each, and what
/// takes longest first.
fn dealt(mut tests: Vec<Test>, (part, parts): (usize, usize)) -> Vec<Test> {
    tests.retain(|test| test.lab.is_some_and(|seconds| parts > 1 || seconds <= LONG));
    if parts > 1 {
        tests.sort_by_key(|test| (std::cmp::Reverse(test.lab), test.name));
    }
    let mut sums = vec![0; parts.max(1)];
    tests.retain(|test| {
        let lightest = (0..sums.len()).min_by_key(|at| sums[*at]).unwrap_or(0);
        sums[lightest] += test.lab.unwrap_or(0);
        lightest == part
    });
    tests
}

fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dealt_gives_each_test_to_one_part_and_about_the_same_to_all() {
        let nothing: fn(&World) = |_| {};
        let names = ["a", "b", "c", "d", "e", "f"];
        let mut all: Vec<Test> = names.map(|name| Test::new(name, nothing)).to_vec();
        for (test, seconds) in all.iter_mut().zip([100, 40, 30, 20, 10]) {
            *test = test.also_in_lab_for(seconds);
        }
        let names = |part| dealt(all.clone(), part).iter().map(|test| test.name).collect::<String>();
        assert_eq!(names((0, 1)), "abcde");
        assert_eq!((names((0, 2)), names((1, 2))), ("a".into(), "bcde".into()));
    }
}
