//! Go templates, as Docker's users write them for `--format`: the `gotmpl` crate with Docker's functions.
//!
//! The language, its builtins and its number formats are the crate's; what Docker adds to Go (`json`,
//! `join`, `table`, …) is here.

mod method;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use gotmpl::{MissingKey, Template, TemplateError, Value};

use super::error::Failure;

/// A template ready to be filled in.
pub(crate) struct Format {
    template: Template,
    /// Whether it calls a method: then another tree than the parsed one is executed.
    calls: bool,
}

impl Format {
    /// Reads a template; `\t` and `\n` written as two characters become what they mean, as Docker does.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let text = unescape(text);
        let parsed = functions(Template::new("").missing_key(MissingKey::Error))
            .parse(&text)
            .and_then(|template| method::with_calls(template, &text));
        let (template, calls) = parsed.map_err(|e| failure(&e))?;
        Ok(Self { template, calls })
    }

    /// Fills it in.
    pub(crate) fn fill(&self, data: &serde_json::Value) -> Result<String, Failure> {
        self.fill_value(&value(data))
    }

    /// Fills it in with a row of a listing: its cells, and `label`, which answers `{{.Label "key"}}`.
    pub(crate) fn fill_row(
        &self,
        cells: &serde_json::Value,
        label: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Result<String, Failure> {
        let data = value(cells);
        if !self.calls {
            return self.fill_value(&data);
        }
        let label = Value::Function(Arc::new(move |args| match args {
            [key] => Ok(label(&plain(key)).into()),
            _ => Err(wrong("Label", "wrong number of args: want 1")),
        }));
        let mut row: BTreeMap<Arc<str>, Value> = match data {
            Value::Map(cells) => cells.as_ref().clone(),
            _ => BTreeMap::new(),
        };
        row.insert("Label".into(), label);
        self.fill_value(&row.into())
    }

    fn fill_value(&self, data: &Value) -> Result<String, Failure> {
        let filled = if self.calls {
            self.template.execute_template_to_string(method::ROOT, data)
        } else {
            self.template.execute_to_string(data)
        };
        filled.map_err(|e| failure(&e))
    }
}

fn failure(error: &TemplateError) -> Failure {
    Failure::usage(format!("template parsing error: {}", message(error)))
}

/// The crate's text without its own heading, which ours replaces.
fn message(error: &TemplateError) -> String {
    let text = error.to_string();
    let text =
        text.strip_prefix("template: ").or_else(|| text.strip_prefix("execution error: ")).unwrap_or(&text);
    text.to_owned()
}

fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// A JSON document as template data. A missing entry of a map of strings (labels) is an empty string in Go,
/// not an error: the crate cannot know that, so `index` below does.
fn value(data: &serde_json::Value) -> Value {
    // A serde_json value has string keys and 64-bit numbers only: it always fits.
    gotmpl::to_value(data).unwrap_or(Value::Nil)
}

fn functions(template: Template) -> Template {
    template
        .func("json", |args| Ok(json_text(one(args)?).into()))
        .func("upper", |args| Ok(plain(one(args)?).to_uppercase().into()))
        .func("lower", |args| Ok(plain(one(args)?).to_lowercase().into()))
        .func("title", |args| Ok(title(&plain(one(args)?)).into()))
        .func("split", |args| {
            let (text, separator) = two(args)?;
            let (text, separator) = (plain(text), plain(separator));
            let parts: Vec<Value> = if separator.is_empty() {
                text.chars().map(|c| c.to_string().into()).collect()
            } else {
                text.split(&separator).map(Value::from).collect()
            };
            Ok(Value::List(parts.into()))
        })
        .func("join", |args| {
            let (list, separator) = two(args)?;
            let parts: Vec<String> = match list {
                Value::List(items) => items.iter().map(plain).collect(),
                Value::Nil => Vec::new(),
                _ => return Err(wrong("join", "its first argument is not a list")),
            };
            Ok(parts.join(&plain(separator)).into())
        })
        .func("pad", |args| match args {
            [text, before, after] => {
                let spaces =
                    |count: &Value| usize::try_from(count.as_int().unwrap_or(0)).unwrap_or(0).min(4096);
                Ok(format!("{}{}{}", " ".repeat(spaces(before)), plain(text), " ".repeat(spaces(after)))
                    .into())
            }
            _ => Err(wrong("pad", "it takes a text and two numbers")),
        })
        .func("truncate", |args| {
            let (text, length) = two(args)?;
            let length = usize::try_from(length.as_int().unwrap_or(0)).unwrap_or(0);
            Ok(plain(text).chars().take(length).collect::<String>().into())
        })
        .func("index", |args| match args {
            [] => Err(wrong("index", "it takes a value and indices")),
            [value, indices @ ..] => {
                let mut value = value.clone();
                for index in indices {
                    value = entry(&value, index)?;
                }
                Ok(value)
            }
        })
}

/// One step of `index`: a missing entry of a map whose values are all strings is the empty string.
fn entry(value: &Value, index: &Value) -> Result<Value, TemplateError> {
    let found = value.index(index)?;
    match (value, found) {
        (Value::Map(map), Value::Nil) if map.values().all(|v| v.as_str().is_some()) => Ok("".into()),
        (_, found) => Ok(found),
    }
}

fn one(args: &[Value]) -> Result<&Value, TemplateError> {
    match args {
        [value] => Ok(value),
        _ => Err(wrong("function", "wrong number of args: want 1")),
    }
}

fn two(args: &[Value]) -> Result<(&Value, &Value), TemplateError> {
    match args {
        [first, second] => Ok((first, second)),
        _ => Err(wrong("function", "wrong number of args: want 2")),
    }
}

fn wrong(function: &str, why: &str) -> TemplateError {
    TemplateError::Exec(format!("error calling {function}: {why}"))
}

fn plain(value: &Value) -> String {
    value.to_string()
}

fn title(text: &str) -> String {
    let mut at_start = true;
    let mut title = String::with_capacity(text.len());
    for character in text.chars() {
        if std::mem::replace(&mut at_start, character.is_whitespace()) {
            title.extend(character.to_uppercase());
        } else {
            title.push(character);
        }
    }
    title
}

/// JSON as Go's encoder writes it: no spaces, sorted keys, `<`, `>` and `&` left alone.
fn json_text(value: &Value) -> String {
    let mut text = String::new();
    push_json(&mut text, value);
    text
}

fn push_json(text: &mut String, value: &Value) {
    // Writing to a String cannot fail.
    match value {
        Value::Bool(flag) => {
            let _ = write!(text, "{flag}");
        }
        Value::Int(number) => {
            let _ = write!(text, "{number}");
        }
        Value::Uint(number) => {
            let _ = write!(text, "{number}");
        }
        Value::Float(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => {
                let _ = write!(text, "{number}");
            }
            None => text.push_str("null"),
        },
        Value::String(string) => text.push_str(&serde_json::Value::from(string.as_ref()).to_string()),
        Value::List(items) => {
            text.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    text.push(',');
                }
                push_json(text, item);
            }
            text.push(']');
        }
        Value::Map(map) => {
            text.push('{');
            let entries = map.iter().filter(|(_, item)| !matches!(item, Value::Function(_)));
            for (number, (key, item)) in entries.enumerate() {
                if number > 0 {
                    text.push(',');
                }
                text.push_str(&serde_json::Value::from(key.as_ref()).to_string());
                text.push(':');
                push_json(text, item);
            }
            text.push('}');
        }
        _ => text.push_str("null"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::Format;

    fn document() -> serde_json::Value {
        json!({
            "Id": "abcdef0123",
            "Name": "/pg",
            "State": {"Status": "running", "Pid": 42, "Running": true},
            "Config": {"Labels": {"a.b": "x"}, "Env": ["A=b", "C=d"], "Cmd": null},
            "Mounts": [{"Type": "volume", "Destination": "/data", "RW": true}],
            "HostConfig": {"Memory": 10_737_418_240_u64, "NanoCpus": 1.5},
            "NetworkSettings": {
                "Ports": {"5432/tcp": [{"HostIp": "0.0.0.0", "HostPort": "5432"}], "80/tcp": null},
                "Networks": {"app": {"IPAddress": "10.0.0.2"}, "bridge": {"IPAddress": "172.17.0.2"}},
            },
        })
    }

    fn fill(text: &str) -> String {
        let result = Format::parse(text).and_then(|format| format.fill(&document()));
        result.unwrap_or_else(|failure| failure.text(false).trim_end().to_owned())
    }

    #[test]
    fn templates_as_dockers_users_write_them() {
        let templates = [
            "{{.Id}}\\t{{.State.Status}}",
            "{{.State.Pid}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.State.Running}}",
            "{{json .State}}",
            "{{json .Config.Cmd}} {{json .Config.Env}}",
            r#"{{index .Config.Labels "a.b"}}[{{index .Config.Labels "zz"}}]"#,
            "{{range .Mounts}}{{.Type}}:{{.Destination}} {{end}}",
            r#"{{(index (index .NetworkSettings.Ports "5432/tcp") 0).HostPort}}"#,
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}}={{if $c}}{{(index $c 0).HostPort}}{{else}}-{{end}} {{end}}",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
            "{{range $k, $v := .NetworkSettings.Networks}}{{println $k $v.IPAddress}}{{end}}",
            "{{.Name | upper}} {{lower .Name}} {{title \"ab cd\"}} {{len .Mounts}}",
            "{{join .Config.Env \",\"}} {{index (split .Id \"c\") 0}}",
            "[{{pad .Name 1 2}}] {{truncate .Id 4}} {{slice .Id 0 2}} {{slice .Name 1}}",
            "{{with .Config}}{{$x := .Env}}{{index $x 1}}{{end}}",
            "{{if eq .State.Status \"running\"}}up{{else}}down{{end}}{{- if not .State.Running}} x{{end -}}  .",
            "{{printf \"%-12s|%5d|%q|%.3s|%v\" .Id .State.Pid .Name .Id .Config.Env}}",
            "{{.Config.Env}} {{.State}}",
            "{{/* comment */}}{{.Config.Cmd}}",
            "{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$e}}{{end}}",
            "{{if and .State.Running (gt .State.Pid 1)}}y{{end}} {{or .Config.Cmd \"none\"}}",
        ];
        let lines: Vec<String> = templates.iter().map(|t| format!("{t}\n    {}", fill(t))).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn errors_name_the_trouble() {
        let templates =
            ["{{.Id", "{{.Nope}}", "{{.State.Nope.Deeper}}", "{{foo .Id}}", "{{join .Id \",\"}}", "{{end}}"];
        let lines: Vec<String> = templates.iter().map(|t| format!("{t}\n    {}", fill(t))).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    proptest! {
        #[test]
        fn no_template_panics(text in "(\\{\\{|\\}\\}|[a-z.$|() \"0-9-]){0,20}") {
            if let Ok(format) = Format::parse(&text) {
                let _ = format.fill(&document());
            }
        }
    }
}
