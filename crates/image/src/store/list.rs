//! What `images` and `history` show.

use super::Store;
use super::index::Entry;
use crate::error::{Error, StoreError};
use crate::request::{HistoryLine, Image};

impl Store {
    /// Every image, the newest first, dangling ones included. Entries whose documents are missing or
    /// damaged are left out: one bad image must not hide the others.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        self.list_telling(&mut |_, _| ())
    }

    /// As [`Store::list`]; `damaged` hears what is left out (its name, or the beginning of its id), and why.
    ///
    /// # Errors
    /// As [`Store::list`].
    pub fn list_telling(&self, damaged: &mut dyn FnMut(&str, &StoreError)) -> Result<Vec<Image>, Error> {
        let entries = self.entries()?;
        let mut images: Vec<Image> = Vec::new();
        for entry in distinct(&entries) {
            match self.listed(&entries, entry) {
                Ok(image) => images.push(image),
                Err(error @ (StoreError::MissingBlob(_) | StoreError::Damaged { .. })) => {
                    damaged(&entry.called(), &error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        images.sort_by(|a, b| b.created().cmp(&a.created()).then_with(|| a.names.cmp(&b.names)));
        Ok(images)
    }

    /// How the image was made, newest step first.
    #[must_use]
    pub fn history(&self, image: &Image) -> Vec<HistoryLine> {
        let mut sizes = image.diff_ids().iter().map(|id| self.layer_size(id).unwrap_or(0));
        let mut lines: Vec<HistoryLine> = image
            .config
            .history
            .iter()
            .map(|step| HistoryLine {
                id: None,
                step: step.clone(),
                size: if step.empty_layer { 0 } else { sizes.next().unwrap_or(0) },
                names: Vec::new(),
            })
            .collect();
        lines.reverse();
        if let Some(newest) = lines.first_mut() {
            newest.id = Some(image.id);
            newest.names.clone_from(&image.names);
        }
        lines
    }
}

/// One entry for each manifest.
fn distinct(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    let mut seen = std::collections::BTreeSet::new();
    entries.iter().filter(move |entry| seen.insert(entry.descriptor.digest))
}
