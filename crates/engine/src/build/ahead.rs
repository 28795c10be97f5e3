//! Layers that the image will have are written while later steps are made: as files that are not blobs yet, and go
//! again when the build fails.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cata_build::graph::Base;
use cata_build::key::Key;
use cata_image::Unnamed;

use super::cache::StepRecord;
use super::solve::{Layer, Solver};

/// A step whose layer the image will have.
type Made = (Key, Arc<StepRecord>);

/// What was written, and to whom it is told what to write.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    written: Mutex<HashMap<Key, Unnamed>>,
    queue: Mutex<Option<Sender<Made>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ahead {
    /// From now on steps are told to the receiver, until [`Ahead::end`].
    pub(super) fn begin(&self) -> Receiver<Made> {
        let (queue, made) = mpsc::channel();
        *lock(&self.queue) = Some(queue);
        made
    }

    pub(super) fn end(&self) {
        lock(&self.queue).take();
    }

    /// What was written of a step's layer.
    pub(super) fn take(&self, key: &Key) -> Option<Unnamed> {
        lock(&self.written).remove(key)
    }
}

impl Solver<'_> {
    /// A stage has this layer now.
    pub(super) fn tell(&self, stage: usize, layer: Option<&Layer>) {
        if let Some(Layer::Step(key, record)) = layer
            && record.captured.is_none()
            && self.is_exported(stage)
            && let Some(queue) = &*lock(&self.ahead.queue)
        {
            // When nobody listens the build is at its end.
            let _ = queue.send((*key, Arc::clone(record)));
        }
    }

    /// Whether a stage's layers are in the image.
    fn is_exported(&self, stage: usize) -> bool {
        let mut at = self.graph.target;
        while at != stage {
            let Base::Stage(base) = self.graph.stages[at].base else { return false };
            at = base;
        }
        self.request.store
    }

    pub(super) fn write_ahead(&self, (key, record): &Made) {
        let Some(layer) = &record.layer else { return };
        let stop = || self.is_cancelled();
        // What is wrong with it is told by who needs it.
        if let Ok(written) = self.engine.images.capture_ahead(&self.cache.layer(layer), &stop) {
            lock(&self.ahead.written).insert(*key, written);
        }
    }
}
