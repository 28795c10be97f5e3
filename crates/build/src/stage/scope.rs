//! Which variables there are in a stage: ENV over ARG, and ARG only where it was declared.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::expand::Scope;
use crate::graph::{Given, Graph};
use crate::lint::{Rule, Warning};

/// Arguments that every RUN sees when they are given, and that make no difference to the cache.
pub(super) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Declared arguments, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments(Vec<(String, Option<String>)>);

impl Arguments {
    fn get(&self, name: &str) -> Option<&Option<String>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    fn set(&mut self, name: &str, value: Option<String>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

/// The variables at one place of a stage.
pub(super) struct Names {
    pub(super) env: BTreeMap<String, String>,
    pub(super) arguments: Arguments,
    globals: BTreeMap<String, Option<String>>,
    pub(super) consumed: Vec<String>,
}

impl Names {
    pub(super) fn new(graph: &Graph, inherited: Option<&Arguments>, env: &[String]) -> Self {
        let pairs = env.iter().filter_map(|line| line.split_once('='));
        Self {
            env: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            arguments: inherited.cloned().unwrap_or_default(),
            globals: graph.globals.clone(),
            consumed: Vec::new(),
        }
    }

    /// `ARG name[=default]`; returns its value.
    pub(super) fn declare(&mut self, name: &str, default: Option<String>, given: &Given) -> Option<String> {
        let value = match given.args.get(name) {
            Some(value) => {
                self.consumed.push(name.to_owned());
                Some(value.clone())
            }
            None => default.or_else(|| self.globals.get(name).cloned().flatten()),
        };
        self.arguments.set(name, value.clone());
        value
    }

    /// What a RUN gets of the arguments: those with a value that no ENV hides.
    pub(super) fn for_run(&self) -> Vec<String> {
        let visible = self.arguments.0.iter().filter(|(name, _)| !self.env.contains_key(name));
        visible.filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?))).collect()
    }

    /// Proxies that were given; undeclared, they are not in the history.
    pub(super) fn proxies(&self, given: &Given) -> Vec<String> {
        let undeclared = |name: &&str| self.arguments.get(name).is_none() && !self.env.contains_key(*name);
        let given = |name: &str| Some(format!("{name}={}", given.args.get(name)?));
        PROXIES.iter().copied().filter(|name| undeclared(name)).filter_map(given).collect()
    }

    /// Expands; what has no value is a warning.
    pub(super) fn expand<T>(
        &self,
        escape: char,
        line: usize,
        warnings: &mut Vec<Warning>,
        how: impl FnOnce(&mut Scope<'_>) -> Result<T>,
    ) -> Result<T> {
        let lookup =
            |name: &str| self.env.get(name).cloned().or_else(|| self.arguments.get(name).cloned().flatten());
        let mut scope = Scope::new(&lookup, escape);
        let result = how(&mut scope)?;
        for name in scope.undefined {
            // Declared without a value is as good as empty, and meant.
            let warning =
                Warning::new(Rule::UndefinedVar, line, format!("Usage of undefined variable '${name}'"));
            if self.arguments.get(&name).is_none() && line > 0 && !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        Ok(result)
    }
}
