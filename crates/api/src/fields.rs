//! A document taken apart field by field: what nobody has taken at the end must say nothing, or is refused by its
//! name. So no wish of a client's is ever ignored.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::refusal::{Outcome, Refusal};

/// What is left of an object.
#[derive(Debug)]
pub(crate) struct Fields {
    /// `HostConfig.`
    place: String,
    map: Map<String, Value>,
}

impl Fields {
    /// An object, or nothing.
    pub(crate) fn new(place: &str, value: Value) -> Outcome<Self> {
        let map = match value {
            Value::Null => Map::new(),
            Value::Object(map) => map,
            _ => return Err(Refusal::invalid(format!("{place} must be an object"))),
        };
        Ok(Self { place: place.to_owned(), map })
    }

    fn path(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    /// A field as it is.
    pub(crate) fn value(&mut self, name: &str) -> Value {
        // Go's decoder does not care for the case of letters.
        let key = self.map.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
        key.and_then(|key| self.map.remove(&key)).unwrap_or(Value::Null)
    }

    fn wrong(&self, name: &str, wanted: &str) -> Refusal {
        Refusal::invalid(format!("{} must be {wanted}", self.path(name)))
    }

    /// A text; none and an empty one are the same.
    pub(crate) fn text(&mut self, name: &str) -> Outcome<Option<String>> {
        match self.value(name) {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            _ => Err(self.wrong(name, "a string")),
        }
    }

    /// A yes or no; none is no.
    pub(crate) fn flag(&mut self, name: &str) -> Outcome<bool> {
        match self.value(name) {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(flag),
            _ => Err(self.wrong(name, "a boolean")),
        }
    }

    /// A number; 0 is none, as Docker means it.
    pub(crate) fn number(&mut self, name: &str) -> Outcome<Option<i64>> {
        match self.value(name) {
            Value::Null => Ok(None),
            Value::Number(number) => {
                let number = number.as_i64().ok_or_else(|| self.wrong(name, "a whole number"))?;
                Ok(Some(number).filter(|number| *number != 0))
            }
            _ => Err(self.wrong(name, "a number")),
        }
    }

    /// As [`Fields::number`], of those that cannot be below 0.
    pub(crate) fn amount(&mut self, name: &str) -> Outcome<Option<u64>> {
        let number = self.number(name)?;
        number.map(|n| u64::try_from(n).map_err(|_| self.wrong(name, "0 or more"))).transpose()
    }

    /// Strings; none are an empty list. One string is a list of itself, as for `Cmd` and `Entrypoint`.
    pub(crate) fn list(&mut self, name: &str) -> Outcome<Vec<String>> {
        Ok(self.list_if_any(name)?.unwrap_or_default())
    }

    /// As [`Fields::list`]; an empty list is not none.
    pub(crate) fn list_if_any(&mut self, name: &str) -> Outcome<Option<Vec<String>>> {
        match self.value(name) {
            Value::Null => Ok(None),
            Value::String(one) => Ok(Some(vec![one])),
            Value::Array(list) => {
                let texts = list.into_iter().map(|item| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(self.wrong(name, "a list of strings")),
                });
                texts.collect::<Outcome<_>>().map(Some)
            }
            _ => Err(self.wrong(name, "a list of strings")),
        }
    }

    /// Objects.
    pub(crate) fn objects(&mut self, name: &str) -> Outcome<Vec<Self>> {
        let place = self.path(name);
        match self.value(name) {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) => list.into_iter().map(|item| Self::new(&place, item)).collect(),
            _ => Err(self.wrong(name, "a list")),
        }
    }

    /// An object within.
    pub(crate) fn within(&mut self, name: &str) -> Outcome<Self> {
        let (place, value) = (self.path(name), self.value(name));
        Self::new(&place, value)
    }

    /// Strings by name.
    pub(crate) fn texts(&mut self, name: &str) -> Outcome<BTreeMap<String, String>> {
        let within = self.within(name)?;
        let pairs = within.map.into_iter().map(|(key, value)| match value {
            Value::String(text) => Ok((key, text)),
            Value::Null => Ok((key, String::new())),
            _ => Err(Refusal::invalid(format!("{}.{key} must be a string", within.place))),
        });
        pairs.collect()
    }

    /// What is by name, in the order of the document.
    pub(crate) fn entries(&mut self, name: &str) -> Outcome<Vec<(String, Value)>> {
        Ok(self.within(name)?.map.into_iter().collect())
    }

    /// A field that may say what it likes.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            let _ = self.value(name);
        }
    }

    /// Nothing may be left that says something.
    pub(crate) fn finish(self) -> Outcome<()> {
        match self.map.iter().find(|(_, value)| says_something(value)) {
            None => Ok(()),
            Some((name, value)) => Err(Refusal::unsupported(format!("{} = {value}", self.path(name)))),
        }
    }
}

/// Whether it is other than the field's absence.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => list.iter().any(says_something),
        Value::Object(map) => map.values().any(says_something),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Fields;

    #[test]
    fn nothing_that_says_something_is_ignored() {
        let mut fields = Fields::new(
            "HostConfig",
            json!({"Memory": 5, "binds": ["a"], "Init": null, "New": {"A": [0, ""]}, "Runtime": "kata"}),
        )
        .unwrap();
        assert_eq!(fields.amount("Memory").unwrap(), Some(5));
        assert_eq!(fields.list("Binds").unwrap(), ["a"]);
        assert!(!fields.flag("Init").unwrap());
        let refusal = fields.finish().unwrap_err();
        assert_eq!(refusal.message, "HostConfig.Runtime = \"kata\" is not supported by cata");
        assert_eq!(refusal.status, 501);
        let text = Fields::new("", json!({"Cmd": 5})).unwrap().list("Cmd").unwrap_err().message;
        assert_eq!(text, "Cmd must be a list of strings");
    }
}
