//! What the supervisor writes into the journal: what its container does, and what is done to it.

use cata_runtime::plan::WindowSize;

use super::Driver;
use super::notify::Awaited;
use crate::journal::{self, Entry, Subject, told};
use crate::stamp::Stamp;
use crate::state::{Action, Milestone, State, What};

impl Driver {
    /// A step that is about to be taken.
    pub(super) fn tell_step(&self, what: &What, next: &State, actions: &[Action]) {
        if self.story.is_some() {
            for told in told(&self.state, what, next, actions) {
                self.tell(told.action, &told.attributes);
            }
        }
    }

    /// What has been reached, before who waits for it hears of it.
    pub(super) fn tell_milestone(&mut self, milestone: Milestone) {
        match milestone {
            Milestone::Running if self.somebody_waits(|awaited| matches!(awaited, Awaited::Restarted)) => {
                self.tell("restart", &[]);
            }
            Milestone::ProcessEnded
                if self.somebody_waits(|awaited| matches!(awaited, Awaited::Restarted)) =>
            {
                self.tell("stop", &[]);
            }
            Milestone::Down => {
                self.tell_endings();
                if self.somebody_waits(|awaited| matches!(awaited, Awaited::Stopped { .. })) {
                    self.tell("stop", &[]);
                }
                self.tell_removal();
            }
            Milestone::StartFailed => {
                self.tell_endings();
                self.tell_removal();
            }
            _ => {}
        }
    }

    /// Its networks and volumes are others' again.
    fn tell_endings(&mut self) {
        let Some(story) = &mut self.story else { return };
        let mut endings = std::mem::take(&mut self.network_endings);
        endings.append(&mut story.endings);
        for mut entry in endings {
            entry.at = Stamp::now().unix_nanos();
            journal::write(&story.journal, &entry);
        }
    }

    fn tell_removal(&self) {
        if self.auto_remove {
            self.tell("destroy", &[]);
        }
    }

    pub(super) fn tell_resize(&self, size: WindowSize) {
        let size = [("height", size.rows.to_string()), ("width", size.columns.to_string())];
        self.tell("resize", &size);
    }

    /// Events speak of it by another name from now on.
    pub(super) fn tell_by_name(&mut self, name: String) {
        if let Some(story) = &mut self.story {
            story.attributes.insert("name".to_owned(), name);
        }
    }

    /// An event of the container.
    pub(super) fn tell(&self, action: &str, more: &[(&'static str, String)]) {
        let Some(story) = &self.story else { return };
        let mut attributes = story.attributes.clone();
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let entry = Entry::now(Subject::Container, action, self.status.id.as_str(), attributes);
        journal::write(&story.journal, &entry);
    }
}
