//! What a step of a container's life is in the journal: a pure function of the step.

use crate::health::HealthStatus;
use crate::state::{Action, Phase, Stage, State, What};

/// An event of the container: its action, and what it has besides the usual attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) action: &'static str,
    pub(crate) attributes: Vec<(&'static str, String)>,
}

impl Told {
    fn plain(action: &'static str) -> Self {
        Self { action, attributes: Vec::new() }
    }

    fn with(action: &'static str, key: &'static str, value: &impl ToString) -> Self {
        Self { action, attributes: vec![(key, value.to_string())] }
    }
}

/// What is told of `what`, which led from `before` to `after`; signals are told as those that are sent.
pub(crate) fn told(before: &State, what: &What, after: &State, actions: &[Action]) -> Vec<Told> {
    let mut list = Vec::new();
    match what {
        What::Spawned(_) => list.push(Told::plain("start")),
        What::SpawnFailed(exit) => list.push(Told::with("die", "exitCode", &exit.code)),
        What::ProcessExited(exit) => {
            if exit.oom {
                list.push(Told::plain("oom"));
            }
            let mut die = Told::with("die", "exitCode", &exit.code);
            if let Phase::Draining { ran, .. } = after.phase {
                die.attributes.push(("execDuration", ran.as_secs().to_string()));
            }
            list.push(die);
        }
        _ => {}
    }
    for action in actions {
        match action {
            Action::Signal(signal) => list.push(Told::with("kill", "signal", signal)),
            Action::KillAll if killed(after) && !killed(before) => {
                list.push(Told::with("kill", "signal", &9));
            }
            _ => {}
        }
    }
    if let (Some(before), Some(after)) = (before.health, after.health)
        && before.status != after.status
    {
        match after.status {
            HealthStatus::Starting => {}
            HealthStatus::Healthy => list.push(Told::plain("health_status: healthy")),
            HealthStatus::Unhealthy => list.push(Told::plain("health_status: unhealthy")),
        }
    }
    list
}

/// Whether it has been killed and is not gone yet.
fn killed(state: &State) -> bool {
    matches!(state.phase, Phase::Stopping { stage: Stage::Killed, .. })
}
