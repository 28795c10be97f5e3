//! One step: from the cache, or made now. What COPY and WORKDIR do is here, what RUN does in [`run`](super::run).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cata_build::key::{self, Key};
use cata_build::stage::{Action, CopySource, CopyStep, Step};

use super::cache::{Making, StepRecord};
use super::remote::{self, Remote};
use super::request::BuildEvent;
use super::solve::{Layer, Line, Snapshot, Solved, Solver, first_line, lock};
use super::sources::{self, Place};
use super::{BuildError, copy, overlay, users};

impl Solver<'_> {
    /// One step that touches the file system.
    pub(super) fn step(&self, step: &Step, title: &str, solved: &mut Solved) -> Result<(), BuildError> {
        if self.is_cancelled() {
            return Err(BuildError::cancelled());
        }
        // Waiting for another stage is no part of the step.
        self.sources_of(&step.action)?;
        let number = self.begin(title);
        let start = Instant::now();
        let result = self.perform(step, number, solved);
        let cached = result.as_ref().is_ok_and(|cached| *cached);
        self.end(number, cached, start, result.as_ref().err());
        let mut counts = lock(&self.counts);
        counts.0 += 1;
        counts.1 += usize::from(cached);
        result.map(|_| ())
    }

    /// Solves the stages that a step takes files from.
    fn sources_of(&self, action: &Action) -> Result<(), BuildError> {
        match action {
            Action::Copy(copy) => drop(self.place(&copy.origin)?),
            Action::Run(run) => {
                for mount in &run.mounts {
                    if let Some(name) = mount.from() {
                        drop(self.place(&self.origin(name))?);
                    }
                }
            }
            Action::Nothing | Action::Workdir { .. } => {}
        }
        Ok(())
    }

    /// Returns whether it was there already.
    fn perform(&self, step: &Step, number: usize, solved: &mut Solved) -> Result<bool, BuildError> {
        let before = solved.snapshot.clone();
        let (made, cached, after, own) = match &step.action {
            Action::Nothing => return Ok(true),
            Action::Workdir { path, user } => {
                let key = key::workdir(&before.key, path, user);
                let make = |making: &Making| self.make_workdir(&before, path, user, making);
                let (record, cached, key) = self.make(key, &before, step, make)?;
                (record, cached, key, key)
            }
            Action::Copy(copy) => self.copy(copy, step, &before, number)?,
            Action::Run(run) => {
                let prepared = self.prepare_run(run, solved)?;
                let key = prepared.key;
                let make = |making: &Making| self.run(run, &prepared, solved, making, number);
                let (record, cached, key) = self.make(key, &before, step, make)?;
                (record, cached, key, key)
            }
        };
        solved.snapshot.key = after;
        solved.snapshot.fresh |= !cached && (before.fresh || self.request.no_cache);
        let layer = made.layer.is_some();
        lock(&self.used).push((own, made.clone()));
        solved.history.push(Line {
            created_by: step.created_by.clone(),
            created: Some(made.created.clone()),
            layer,
        });
        if layer {
            solved.snapshot.layers.push(Layer::Step(own, Arc::new(made)));
        }
        Ok(cached)
    }

    /// From the cache, or made now.
    fn make(
        &self,
        key: Key,
        before: &Snapshot,
        step: &Step,
        make: impl FnOnce(&Making) -> Result<bool, BuildError>,
    ) -> Result<(StepRecord, bool, Key), BuildError> {
        let upon = before.top();
        let usable = |key: &Key| !before.fresh || lock(&self.common.made).contains(key);
        if usable(&key)
            && let Some(record) = self.cache.find(&key, upon)
        {
            return Ok((record, true, key));
        }
        let _lock = self.cache.lock_step(&key)?;
        if usable(&key)
            && let Some(record) = self.cache.find(&key, upon)
        {
            return Ok((record, true, key));
        }
        let start = Instant::now();
        let making = self.cache.begin()?;
        let sound = make(&making)?;
        if let Some(epoch) = self.request.epoch {
            super::finish::clamp_times(&making.diff(), epoch)?;
        }
        let empty = cata_image::layer::diff::is_empty(&making.diff()).map_err(cata_image::Error::from)?;
        let record = StepRecord {
            title: first_line(&step.title).to_owned(),
            created: super::finish::now(self.request.epoch),
            took: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            layer: None,
            upon: upon.map(str::to_owned),
            size: 0,
            boot: String::new(),
            synced: false,
            captured: None,
        };
        let key = if sound { key } else { unsound(&key) };
        let record = self.cache.publish(&key, &making, record, empty)?;
        lock(&self.common.made).insert(key);
        Ok((record, false, key))
    }

    fn make_workdir(
        &self,
        before: &Snapshot,
        path: &str,
        user: &str,
        making: &Making,
    ) -> Result<bool, BuildError> {
        let root = overlay::write(&self.paths(before)?, &making.diff(), &making.work())?;
        // Of a user whom the image does not know: whoever runs as such will be told.
        let owner =
            Some(user).filter(|user| !user.is_empty()).and_then(|user| users::owner(&root, user).ok());
        let target = copy::Target { owner, ..target(&root, path) };
        copy::make_directories(&target, path)?;
        Ok(true)
    }
    fn copy(
        &self,
        copy: &CopyStep,
        step: &Step,
        before: &Snapshot,
        number: usize,
    ) -> Result<(StepRecord, bool, Key, Key), BuildError> {
        let place = self.place(&copy.origin)?;
        let selection = match &place {
            Place::Tree(snapshot) => Some((key::selection(&snapshot.key, copy), snapshot.fresh)),
            Place::Local(_) | Place::Nothing => None,
        };
        let linked = if copy.link { None } else { Some(&before.key) };
        let after = |step_key: &Key| if copy.link { stacked(&before.key, step_key) } else { *step_key };
        // Without looking at a single file, if the place is known.
        if let Some((selection, false)) = &selection
            && !before.fresh
            && let Some(content) = self.cache.content(selection)
        {
            let key = key::copy(linked, copy, &content);
            if let Some(record) = self.cache.find(&key, if copy.link { None } else { before.top() }) {
                return Ok((record, true, after(&key), key));
            }
        }
        let threads = usize::try_from(self.engine.host.cpus).unwrap_or(1);
        let found = sources::find(&place, copy, self.known(), |snapshot| self.paths(snapshot), threads)?;
        let mut keyer = key::Keyer::new("sources");
        keyer.text(&found.key().to_string());
        for source in &copy.sources {
            if let CopySource::Inline { name, content } = source {
                keyer.text(name).text(content);
            }
        }
        let say = |text: &[u8]| self.progress.event(BuildEvent::Line { step: number, text });
        let agent = self.request.ssh.get("default").map(PathBuf::as_path);
        let keys = remote::Keys { agent, secrets: &self.request.secrets };
        let remotes = remote::fetch_all(self.cache, copy, keys, &say)?;
        for remote in &remotes {
            keyer.text(&remote.key.to_string());
            lock(&self.materials).insert(remote.material.clone());
        }
        let content = keyer.key();
        if let Some((selection, _)) = &selection {
            self.cache.remember_content(selection, &content);
        }
        let key = key::copy(linked, copy, &content);
        let scratch = Snapshot { key, layers: Vec::new(), fresh: before.fresh };
        let upon = if copy.link { &scratch } else { before };
        let make = |making: &Making| self.make_copy(copy, (&found, &remotes), (upon, before), making);
        let (record, cached, key) = self.make(key, upon, step, make)?;
        Ok((record, cached, after(&key), key))
    }

    fn make_copy(
        &self,
        copy: &CopyStep,
        (found, remotes): (&sources::Found, &[Remote]),
        (upon, before): (&Snapshot, &Snapshot),
        making: &Making,
    ) -> Result<bool, BuildError> {
        let lower = self.paths(upon)?;
        let upper = making.diff();
        let root = overlay::write(&lower, &upper, &making.work())?;
        let owner = match &copy.chown {
            None => None,
            Some(text) if copy.link => {
                // Names are those of the image, though the layer does not stand on it.
                let tree = overlay::read(&self.paths(before)?, &self.cache.empty())?;
                Some(users::owner(&tree, text)?)
            }
            Some(text) => Some(users::owner(&root, text)?),
        };
        let target = copy::Target {
            owner,
            into_directory: copy.into_directory,
            keep_owner: matches!(found.place, Place::Tree(_)),
            chmod: copy.chmod.as_ref(),
            parents: copy.parents,
            unpack: copy.add && copy.unpack != Some(false),
            threads: usize::try_from(self.engine.host.cpus).unwrap_or(1),
            // With `SOURCE_DATE_EPOCH` times are set once more when all is there.
            known: self.request.epoch.is_none().then_some(&self.common.stats),
            upper: (!lower.is_empty()).then_some(&upper),
            ..target(&root, &copy.destination)
        };
        let mut changed = copy::copy(&found.selection, &target)?;
        for remote in remotes {
            let (selection, _root) = remote.select(copy)?;
            // Archives of this host are unpacked, those from elsewhere only when it is asked for.
            let unpack = remote.name.is_some() && copy.unpack == Some(true);
            changed |= copy::copy(&selection, &copy::Target { unpack, ..target.clone() })?;
        }
        for source in &copy.sources {
            if let CopySource::Inline { name, content } = source {
                copy::inline(&target, name, content.as_bytes())?;
            }
        }
        Ok(!changed)
    }
}

/// A linked layer upon something.
fn stacked(before: &Key, layer: &Key) -> Key {
    let mut keyer = key::Keyer::new("stacked");
    keyer.text(&before.to_string()).text(&layer.to_string());
    keyer.key()
}

/// The key of a step whose files changed while they were copied: nobody will ask for it.
fn unsound(key: &Key) -> Key {
    let mut keyer = key::Keyer::new("unsound");
    keyer.text(&key.to_string()).text(crate::container::names::random_id().as_str());
    keyer.key()
}

/// Root's, as it is.
fn target<'t>(root: &'t cata_sys::path::Root, destination: &'t str) -> copy::Target<'t> {
    copy::Target {
        root,
        destination,
        into_directory: false,
        owner: None,
        keep_owner: false,
        chmod: None,
        parents: false,
        unpack: false,
        threads: 1,
        known: None,
        upper: None,
    }
}
