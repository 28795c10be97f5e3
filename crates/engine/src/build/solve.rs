//! Stages side by side: each waits only for those that it builds on or takes files from.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cata_build::attest::Material;
use cata_build::context::StatCache;
use cata_build::graph::{Base, Given, Graph};
use cata_build::key::{self, Key};
use cata_build::lint::{self, Warning};
use cata_build::stage::{Action, Arguments, Origin, Plan};
use cata_image::{Image, Progress};
use cata_spec::image::ContainerConfig;

use super::BuildError;
use super::ahead::Ahead;
use super::cache::{Cache, StepRecord};
use super::request::{BuildEvent, BuildProgress, BuildRequest, is_known_argument};
use super::sources::{self, Contexts, Named, Place};
use crate::engine::Engine;
use crate::error::Kind;
use crate::request::{CreateRequest, PullPolicy};

/// A file system: layers upon each other, and the key of all of it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(crate) key: Key,
    /// Lowest first.
    pub(crate) layers: Vec<Layer>,
    /// Made by this build without looking into the cache: what builds on it does not either.
    pub(crate) fresh: bool,
}

/// One layer.
#[derive(Debug, Clone)]
pub(crate) enum Layer {
    /// Of an image of the store, by its place.
    Image(Arc<Image>, usize),
    /// Of a step.
    Step(Key, Arc<StepRecord>),
}

impl Snapshot {
    /// The step's layer on top, if it is a step's.
    pub(super) fn top(&self) -> Option<&str> {
        match self.layers.last() {
            Some(Layer::Step(_, record)) => record.layer.as_deref(),
            _ => None,
        }
    }
}

/// A line of the history.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) created_by: String,
    pub(crate) created: Option<String>,
    pub(crate) layer: bool,
}

/// A stage that is done.
#[derive(Debug, Clone)]
pub(crate) struct Solved {
    pub(crate) snapshot: Snapshot,
    pub(crate) config: ContainerConfig,
    pub(crate) author: Option<String>,
    pub(crate) arguments: Arguments,
    /// The image at the bottom.
    pub(crate) image: Option<Arc<Image>>,
    /// Above the image's own.
    pub(crate) history: Vec<Line>,
}

enum State {
    Waiting,
    Working,
    Done(Result<Arc<Solved>, BuildError>),
}

/// What the solvers of several platforms have in common.
pub(super) struct Common {
    contexts: Contexts,
    /// Steps are numbered as they begin.
    numbers: AtomicUsize,
    cancelled: AtomicBool,
    /// Steps that this build made, or found: with `--no-cache` too they are made once.
    pub(super) made: Mutex<BTreeSet<Key>>,
    several: bool,
    /// When the build began, RFC 3339.
    started: String,
    /// Digests of files of layers: those that were copied need not be read to be copied on.
    pub(super) stats: Mutex<StatCache>,
}

impl Common {
    pub(super) fn new(cache: &Cache, request: &BuildRequest) -> Result<Self, BuildError> {
        Ok(Self {
            contexts: Contexts::open(cache, request)?,
            numbers: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            made: Mutex::default(),
            several: request.platforms.len() > 1,
            started: super::finish::now(request.epoch),
            stats: Mutex::new(StatCache::of_layers()),
        })
    }

    /// Keeps what is known of the contexts for the next build.
    pub(super) fn save(&self) {
        self.contexts.save();
    }
}

pub(crate) struct Solver<'s> {
    pub(super) engine: &'s Engine,
    pub(super) request: &'s BuildRequest,
    pub(super) graph: &'s Graph,
    given: &'s Given,
    pub(super) cache: &'s Cache,
    pub(super) progress: &'s dyn BuildProgress,
    /// `--platform`, this one of several.
    pub(super) platform: Option<String>,
    pub(super) common: &'s Common,
    stages: Vec<(Mutex<State>, Condvar)>,
    images: Mutex<HashMap<String, Arc<Mutex<Option<Arc<Image>>>>>>,
    pub(super) counts: Mutex<(usize, usize)>,
    warnings: Mutex<Vec<Warning>>,
    consumed: Mutex<BTreeSet<String>>,
    pub(super) salt: String,
    /// Every step that was made or found, those below before those above.
    pub(super) used: Mutex<Vec<(Key, StepRecord)>>,
    /// Images and files from afar.
    pub(super) materials: Mutex<BTreeSet<Material>>,
    pub(super) ahead: Ahead,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'s> Solver<'s> {
    pub(super) fn new(
        engine: &'s Engine,
        request: &'s BuildRequest,
        graph: &'s Graph,
        given: &'s Given,
        cache: &'s Cache,
        (progress, common): (&'s dyn BuildProgress, &'s Common),
    ) -> Self {
        Self {
            engine,
            request,
            graph,
            given,
            cache,
            progress,
            platform: (!request.platforms.is_empty()).then(|| given.target_platform.clone()),
            common,
            stages: graph.stages.iter().map(|_| (Mutex::new(State::Waiting), Condvar::new())).collect(),
            images: Mutex::default(),
            counts: Mutex::default(),
            warnings: Mutex::default(),
            consumed: Mutex::default(),
            salt: request.epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
            used: Mutex::default(),
            materials: Mutex::default(),
            ahead: Ahead::default(),
        }
    }

    /// What is built for.
    pub(super) fn target_platform(&self) -> &str {
        &self.given.target_platform
    }

    /// When the build began.
    pub(super) fn started(&self) -> &str {
        &self.common.started
    }

    /// What the build was made of.
    pub(super) fn materials(&self) -> Vec<Material> {
        lock(&self.materials).iter().cloned().collect()
    }

    /// Whether the rest is not worth making any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.common.cancelled.load(Ordering::Relaxed) || self.progress.is_unwanted()
    }

    /// A stage's name, with the platform if there are several.
    fn stage_title(&self, index: usize) -> String {
        let title = self.graph.title(index);
        if self.common.several { format!("{} {title}", self.given.target_platform) } else { title }
    }

    /// Solves the target and all it needs.
    pub(super) fn solve_all(&self) -> Result<Arc<Solved>, BuildError> {
        let needed = self.graph.needed(self.graph.target);
        let layers = self.ahead.begin();
        let result = std::thread::scope(|scope| {
            scope.spawn(move || {
                layers.iter().for_each(|made| drop(scope.spawn(move || self.write_ahead(&made))));
            });
            for index in &needed {
                if *index != self.graph.target {
                    scope.spawn(|| drop(self.solve(*index)));
                }
            }
            let result = self.solve(self.graph.target);
            self.ahead.end();
            result
        });
        // The failure that made others stop is the one to tell.
        let own = |error: &BuildError| !error.cancelled;
        match result {
            Err(error) if error.cancelled => {
                let found = self.stages.iter().find_map(|(state, _)| match &*lock(state) {
                    State::Done(Err(error)) if own(error) => Some(error.clone()),
                    _ => None,
                });
                Err(found.unwrap_or(error))
            }
            other => other,
        }
    }

    /// One stage: solved by whoever comes first, the others wait.
    pub(super) fn solve(&self, index: usize) -> Result<Arc<Solved>, BuildError> {
        let (state, done) = &self.stages[index];
        let mut guard = lock(state);
        loop {
            match &*guard {
                State::Done(result) => return result.clone(),
                State::Working => guard = done.wait(guard).unwrap_or_else(PoisonError::into_inner),
                State::Waiting => break,
            }
        }
        *guard = State::Working;
        drop(guard);
        let result = self.stage(index).map(Arc::new);
        if result.is_err() {
            self.common.cancelled.store(true, Ordering::Relaxed);
        }
        *lock(state) = State::Done(result.clone());
        done.notify_all();
        result
    }

    fn stage(&self, index: usize) -> Result<Solved, BuildError> {
        let stage = &self.graph.stages[index];
        let name = &self.request.dockerfile.name;
        let text = &self.request.dockerfile.text;
        let mut solved = self.base(index).map_err(|error| error.on(name, text, stage.line))?;
        let plan =
            cata_build::stage::plan(self.graph, index, self.given, &solved.config, Some(&solved.arguments))
                .map_err(|error| BuildError::language(&error, name, text))?;
        lock(&self.warnings).extend(plan.warnings.iter().cloned());
        lock(&self.warnings).extend(self.common.contexts.ignored(&plan));
        lock(&self.consumed).extend(plan.consumed.iter().cloned());
        if self.request.no_cache_filter.iter().any(|filter| Some(filter.as_str()) == stage.name.as_deref()) {
            solved.snapshot.fresh = true;
        }
        let total = plan.steps.iter().filter(|step| step.action != Action::Nothing).count() + 1;
        let mut number = 1;
        for step in &plan.steps {
            if step.action == Action::Nothing {
                solved.history.push(Line {
                    created_by: step.created_by.clone(),
                    created: None,
                    layer: false,
                });
                continue;
            }
            number += 1;
            let title = format!("[{} {number}/{total}] {}", self.stage_title(index), first_line(&step.title));
            let below = solved.snapshot.layers.len();
            self.step(step, &title, &mut solved).map_err(|error| error.on(name, text, step.line))?;
            self.tell(index, solved.snapshot.layers.get(below));
        }
        let Plan { config, author, arguments, .. } = plan;
        solved.config = config;
        solved.author = author.or(solved.author);
        solved.arguments = arguments;
        Ok(solved)
    }

    fn base(&self, index: usize) -> Result<Solved, BuildError> {
        let stage = &self.graph.stages[index];
        let fresh = self.request.no_cache;
        let nothing = |image: Option<Arc<Image>>, snapshot, config| Solved {
            snapshot,
            config,
            author: image.as_ref().and_then(|image| image.config.author.clone()),
            arguments: Arguments::default(),
            image,
            history: Vec::new(),
        };
        match &stage.base {
            Base::Stage(base) => {
                let mut solved = Solved::clone(&*self.solve(*base)?);
                solved.snapshot.fresh |= fresh;
                Ok(solved)
            }
            Base::Scratch => {
                let snapshot = Snapshot { key: key::base(&[], &self.salt), layers: Vec::new(), fresh };
                Ok(nothing(None, snapshot, cata_build::stage::scratch()))
            }
            Base::External(name) => {
                let name = match self.common.contexts.named(self.cache, name)? {
                    None => name.clone(),
                    Some(Named::Image(image)) => image,
                    Some(Named::Local(local)) => {
                        return Err(BuildError::new(
                            Kind::InvalidArgument,
                            format!(
                                "FROM {name}: the context {} is a directory, not an image",
                                local.path.display()
                            ),
                        ));
                    }
                };
                let title = format!("[{} 1] FROM {name}", self.stage_title(index));
                let image = self.image(&name, stage.platform.as_deref(), &title)?;
                let config = image.config.config.clone();
                let mut snapshot = sources::of_image(&image, &self.salt);
                snapshot.fresh = fresh;
                Ok(nothing(Some(image), snapshot, config))
            }
        }
    }

    /// An image, resolved once a build.
    fn image(&self, name: &str, platform: Option<&str>, title: &str) -> Result<Arc<Image>, BuildError> {
        let platform = platform.map(str::to_owned).or_else(|| self.platform.clone());
        let id = format!("{name} {}", platform.clone().unwrap_or_default());
        let slot = Arc::clone(lock(&self.images).entry(id).or_default());
        let mut slot = lock(&slot);
        if let Some(image) = &*slot {
            return Ok(Arc::clone(image));
        }
        let number = self.begin(title);
        let start = Instant::now();
        let mut request = CreateRequest::new(name);
        request.platform = platform;
        // What is named by its id is in the store or nowhere.
        let anew = self.request.pull && !name.starts_with("sha256:");
        request.pull = if anew { PullPolicy::Always } else { PullPolicy::Missing };
        let pulling = Pulling { number, progress: self.progress, any: AtomicBool::new(false) };
        let image = self.engine.image_for(&request, &pulling).map_err(BuildError::from);
        let cached = !pulling.any.load(Ordering::Relaxed);
        self.end(number, cached, start, image.as_ref().err());
        let image = Arc::new(image?);
        let known = image.repo_digests.first().and_then(cata_spec::Reference::digest);
        let digest = known.unwrap_or(image.digest());
        let material = Material::image(name, &image.platform().to_string(), &digest);
        lock(&self.materials).insert(material);
        *slot = Some(Arc::clone(&image));
        Ok(image)
    }

    /// The directories of a snapshot's layers, topmost first.
    pub(super) fn paths(&self, snapshot: &Snapshot) -> Result<Vec<PathBuf>, BuildError> {
        let mut paths = Vec::with_capacity(snapshot.layers.len());
        let mut known: Option<(Arc<Image>, Vec<PathBuf>)> = None;
        for layer in snapshot.layers.iter().rev() {
            match layer {
                Layer::Step(_, record) => {
                    paths.extend(record.layer.as_deref().map(|layer| self.cache.layer(layer)));
                }
                Layer::Image(image, at) => {
                    if known.as_ref().is_none_or(|(other, _)| !Arc::ptr_eq(other, image)) {
                        known = Some((Arc::clone(image), self.engine.layers(image)?));
                    }
                    let directories = known.as_ref().map(|(_, paths)| paths.as_slice()).unwrap_or_default();
                    // Topmost first there too.
                    paths.extend(directories.iter().rev().nth(*at).cloned());
                }
            }
        }
        Ok(paths)
    }

    /// What looking for files needs to know.
    pub(super) fn known(&self) -> (&'s Cache, &'s Mutex<StatCache>) {
        (self.cache, &self.common.stats)
    }

    /// What a COPY or a mount is taken from, with the key of all of it if it is a tree.
    pub(super) fn place(&self, origin: &Origin) -> Result<Place, BuildError> {
        match origin {
            Origin::Context => Ok(self.common.contexts.main()),
            Origin::Stage(index) => Ok(Place::Tree(self.solve(*index)?.snapshot.clone())),
            Origin::External(name) => {
                let image = match self.common.contexts.named(self.cache, name)? {
                    Some(Named::Local(local)) => return Ok(Place::Local(local)),
                    Some(Named::Image(image)) => image,
                    None => name.clone(),
                };
                let image = self.image(&image, None, &format!("FROM {image}")).map_err(|mut error| {
                    if let Some(near) = self.graph.nearest(name) {
                        error.hint = Some(format!("{name} is no stage above: did you mean {near}?"));
                    }
                    error.hint(Some(format!("{name} is no stage above, no --build-context, and no image")))
                })?;
                Ok(Place::Tree(sources::of_image(&image, &self.salt)))
            }
        }
    }

    pub(super) fn begin(&self, title: &str) -> usize {
        let step = self.next_number();
        self.progress.event(BuildEvent::Begin { step, title: title.to_owned() });
        step
    }

    pub(super) fn next_number(&self) -> usize {
        self.common.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn end(&self, step: usize, cached: bool, start: Instant, error: Option<&BuildError>) {
        let cancelled = error.is_some_and(|error| error.cancelled);
        let error = error.map(|error| error.message.clone());
        self.progress.event(BuildEvent::End { step, cached, took: start.elapsed(), error, cancelled });
    }

    pub(super) fn used(&self) -> Vec<(Key, StepRecord)> {
        lock(&self.used).clone()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        *lock(&self.counts)
    }

    /// What the lint has to say of what was built.
    pub(super) fn warnings(&self, file: &cata_build::Dockerfile) -> Vec<Warning> {
        let mut found = lint::file(file);
        found.extend(self.graph.warnings.iter().cloned());
        found.extend(lock(&self.warnings).iter().cloned());
        found
    }

    /// Build arguments that nothing asked for.
    pub(super) fn unused_args(&self) -> Vec<String> {
        let consumed = lock(&self.consumed);
        let known = |name: &String| {
            consumed.contains(name) || self.graph.globals.contains_key(name) || is_known_argument(name)
        };
        self.request.args.keys().filter(|name| !known(name)).cloned().collect()
    }
}

pub(super) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Passes on what the image room says.
struct Pulling<'p> {
    number: usize,
    progress: &'p dyn BuildProgress,
    any: AtomicBool,
}

impl Progress for Pulling<'_> {
    fn event(&self, event: cata_image::Event) {
        self.any.store(true, Ordering::Relaxed);
        self.progress.event(BuildEvent::Pull { step: self.number, event });
    }
}
