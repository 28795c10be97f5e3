//! What COPY and mounts take from: the context, named contexts, images, other stages.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cata_build::context::{How, Selection, StatCache, select};
use cata_build::ignore::Ignore;
use cata_build::key::Key;
use cata_build::lint::Warning;
use cata_build::stage::{CopySource, CopyStep, Plan};
use cata_image::Image;
use cata_sys::path::Root;

use super::BuildError;
use super::cache::Cache;
use super::overlay;
use super::request::{BuildRequest, Context, NamedContext};
use super::solve::Snapshot;
use crate::error::Kind;

/// A directory of this host, with what is left out of it.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) path: PathBuf,
    pub(super) ignore: Ignore,
    stats: Mutex<StatCache>,
}

impl Local {
    fn open(cache: &Cache, path: &Path, own_ignore: Option<&str>) -> Result<Self, BuildError> {
        let path = path.canonicalize().map_err(|e| {
            BuildError::io("open the build context", path, e).hint(Some("give a directory".to_owned()))
        })?;
        if !path.is_dir() {
            return Err(BuildError::new(
                Kind::InvalidArgument,
                format!("the build context {} is not a directory", path.display()),
            ));
        }
        let text = match own_ignore {
            Some(text) => text.to_owned(),
            None => match std::fs::read(path.join(".dockerignore")) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(e) => return Err(BuildError::io("read", &path.join(".dockerignore"), e)),
            },
        };
        let ignore = Ignore::parse(&text)
            .map_err(|why| BuildError::new(Kind::InvalidArgument, format!(".dockerignore: {why}")))?;
        let stats = Mutex::new(StatCache::open(&cache.context_file(&path)));
        Ok(Self { path, ignore, stats })
    }

    /// Keeps digests for the next build.
    pub(super) fn save(&self) {
        // Without it the next build reads the files again.
        let _ = self.stats.lock().unwrap_or_else(std::sync::PoisonError::into_inner).save();
    }
}

/// Somewhere files are taken from.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Local(Arc<Local>),
    /// A stage's or an image's file system.
    Tree(Snapshot),
    /// A context that is not there.
    Nothing,
}

/// Every context of a build, opened once.
#[derive(Debug)]
pub(super) struct Contexts {
    main: Option<Arc<Local>>,
    named: HashMap<String, NamedContext>,
    opened: Mutex<HashMap<String, Arc<Local>>>,
}

impl Contexts {
    pub(super) fn open(cache: &Cache, request: &BuildRequest) -> Result<Self, BuildError> {
        let main = match &request.context {
            Context::Directory(path) => {
                Some(Arc::new(Local::open(cache, path, request.dockerfile.ignore.as_deref())?))
            }
            Context::Empty => None,
        };
        let named = request.contexts.iter().map(|(name, context)| (name.clone(), context.clone())).collect();
        // Needed or not: a path that leads nowhere is a typing error.
        for (name, context) in &request.contexts {
            if let NamedContext::Directory(path) = context
                && let Err(error) = std::fs::metadata(path)
            {
                return Err(
                    BuildError::io("open", path, error).hint(Some(format!("--build-context {name}=…")))
                );
            }
        }
        Ok(Self { main, named, opened: Mutex::default() })
    }

    /// What a stage takes of the context although it is left out.
    pub(super) fn ignored(&self, plan: &Plan) -> Vec<Warning> {
        self.main.as_ref().map(|local| cata_build::lint::ignored(plan, &local.ignore)).unwrap_or_default()
    }

    pub(super) fn main(&self) -> Place {
        self.main.clone().map_or(Place::Nothing, Place::Local)
    }

    /// A context by name, if there is one.
    pub(super) fn named(&self, cache: &Cache, name: &str) -> Result<Option<Named>, BuildError> {
        match self.named.get(name) {
            None => Ok(None),
            Some(NamedContext::Image(image)) => Ok(Some(Named::Image(image.clone()))),
            // What [`super::layouts`] has not made an image of.
            Some(NamedContext::Layout(dir, _)) => {
                Err(BuildError::new(Kind::Internal, format!("{} was not read", dir.display())))
            }
            Some(NamedContext::Directory(path)) => {
                let mut opened = self.opened.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(known) = opened.get(name) {
                    return Ok(Some(Named::Local(Arc::clone(known))));
                }
                let local = Arc::new(Local::open(cache, path, None)?);
                opened.insert(name.to_owned(), Arc::clone(&local));
                Ok(Some(Named::Local(local)))
            }
        }
    }

    pub(super) fn save(&self) {
        self.main.iter().for_each(|local| local.save());
        self.opened
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .values()
            .for_each(|local| local.save());
    }
}

/// What a named context is.
pub(super) enum Named {
    Local(Arc<Local>),
    Image(String),
}

/// Files found, and the tree they are in, kept open.
pub(super) struct Found {
    pub(super) selection: Selection,
    pub(super) place: Place,
    _root: Root,
}

impl Found {
    pub(super) fn key(&self) -> Key {
        self.selection.key(matches!(self.place, Place::Tree(_)))
    }
}

/// Finds what a step takes from a place.
pub(super) fn find(
    place: &Place,
    step: &CopyStep,
    (cache, layers): (&Cache, &Mutex<StatCache>),
    paths: impl Fn(&Snapshot) -> Result<Vec<PathBuf>, BuildError>,
    threads: usize,
) -> Result<Found, BuildError> {
    let sources: Vec<&str> = step
        .sources
        .iter()
        .filter_map(|source| match source {
            CopySource::Path(path) => Some(path.as_str()),
            _ => None,
        })
        .collect();
    let exclude = Ignore::of(step.exclude.iter().map(String::as_str))
        .map_err(|why| BuildError::new(Kind::InvalidArgument, format!("--exclude: {why}")))?;
    let none = Ignore::default();
    let how = |ignore, stage| How { ignore, exclude: &exclude, parents: step.parents, stage, threads };
    match place {
        Place::Local(local) => {
            let root = Root::open_trusted(&local.path)
                .map_err(|errno| BuildError::io("open", &local.path, errno))?;
            let mut stats = local.stats.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let selection = select(&root, &sources, &how(&local.ignore, false), Some(&mut stats))?;
            Ok(Found { selection, place: place.clone(), _root: root })
        }
        Place::Tree(snapshot) => {
            let root = overlay::read(&paths(snapshot)?, &cache.empty())?;
            let known = || layers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // Not held while files are read: another stage does without meanwhile.
            let mut stats = std::mem::replace(&mut *known(), StatCache::of_layers());
            let selection = select(&root, &sources, &how(&none, true), Some(&mut stats));
            known().absorb(stats);
            let selection = selection?;
            Ok(Found { selection, place: place.clone(), _root: root })
        }
        Place::Nothing if sources.is_empty() => {
            let root = overlay::read(&[], &cache.empty())?;
            Ok(Found { selection: Selection { roots: Vec::new() }, place: Place::Nothing, _root: root })
        }
        Place::Nothing => Err(BuildError::new(
            Kind::InvalidArgument,
            format!("there is no build context to copy {} from", sources.join(" ")),
        )
        .hint(Some("give a directory as the last argument, and the Dockerfile with -f -".to_owned()))),
    }
}

/// An image as a snapshot.
pub(super) fn of_image(image: &Arc<Image>, salt: &str) -> Snapshot {
    Snapshot {
        key: cata_build::key::base(image.diff_ids(), salt),
        layers: (0..image.diff_ids().len())
            .map(|at| super::solve::Layer::Image(Arc::clone(image), at))
            .collect(),
        fresh: false,
    }
}
