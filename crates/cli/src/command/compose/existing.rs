//! The containers of a project that are there, by their labels.

use std::collections::BTreeSet;

use cata_compose::plan::Have;
use cata_compose::words::{HASH, NUMBER, ONE_OFF, PROJECT, SERVICE};
use cata_engine::Engine;
use cata_engine::container::live::View;
use cata_engine::status::StatusKind;

use super::project::Loaded;
use crate::render::error::Failure;

/// A container of the project.
#[derive(Clone)]
pub(super) struct Existing {
    /// The service's key.
    pub(super) service: String,
    /// Which of them.
    pub(super) number: u32,
    /// Of `run`.
    pub(super) one_off: bool,
    /// All that is known of it.
    pub(super) view: View,
}

impl Existing {
    /// `web-1`: what stands before its lines.
    pub(super) fn short(&self, project: &str) -> String {
        let name = self.view.record.name.as_str();
        name.strip_prefix(project).and_then(|rest| rest.strip_prefix('-')).unwrap_or(name).to_owned()
    }

    /// Its id.
    pub(super) fn id(&self) -> &str {
        self.view.record.id.as_str()
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.view.record.name.as_str()
    }

    /// Whether it has a process, or will have one again.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.view.status.status, StatusKind::Created | StatusKind::Exited)
    }

    /// For the plan.
    pub(super) fn have(&self) -> Have {
        let record = &self.view.record;
        Have {
            id: record.id.to_string(),
            name: record.name.to_string(),
            number: self.number,
            hash: record.config.labels.get(HASH).cloned().unwrap_or_default(),
            image: record.image.id.clone(),
            created: record.created,
            running: self.runs(),
        }
    }
}

/// All containers of a project, by service and number.
pub(super) fn all(engine: &Engine, project: &str) -> Result<Vec<Existing>, Failure> {
    let mut found = Vec::new();
    for view in engine.views()? {
        let labels = &view.record.config.labels;
        let Some(service) = labels.get(SERVICE).filter(|_| labels.get(PROJECT).is_some_and(|p| p == project))
        else {
            continue;
        };
        let number = labels.get(NUMBER).and_then(|number| number.parse().ok()).unwrap_or(1);
        let one_off = labels.get(ONE_OFF).is_some_and(|word| word.eq_ignore_ascii_case("true"));
        found.push(Existing { service: service.clone(), number, one_off, view });
    }
    found.sort_by(|a, b| (&a.service, a.number).cmp(&(&b.service, b.number)));
    Ok(found)
}

/// Those of services, of all that are meant if none is named; none of `run`.
pub(super) fn of(engine: &Engine, loaded: &Loaded, named: &[String]) -> Result<Vec<Existing>, Failure> {
    let wanted: BTreeSet<String> = cata_compose::graph::chosen(&loaded.project.services, named, true)?;
    let mut found = all(engine, &loaded.project.name)?;
    found.retain(|one| !one.one_off && wanted.contains(&one.service));
    Ok(found)
}

/// The one of a service that a command without a number means.
pub(super) fn one(
    engine: &Engine,
    loaded: &Loaded,
    service: &str,
    number: Option<u32>,
) -> Result<Existing, Failure> {
    loaded.service(service)?;
    let mut found = of(engine, loaded, &[service.to_owned()])?;
    found.retain(|one| number.is_none_or(|number| one.number == number));
    let running = found.iter().position(Existing::runs);
    let index = running.ok_or_else(|| {
        let which = number.map(|number| format!(" #{number}")).unwrap_or_default();
        Failure::client(format!("service {service}{which} is not running")).with_hint("cata compose up -d")
    })?;
    Ok(found.swap_remove(index))
}
