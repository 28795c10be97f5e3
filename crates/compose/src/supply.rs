//! `secrets` and `configs` of a project: files, or texts that become files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::Result;
use crate::fields::{Fields, wrong};
use crate::project::{Around, entries};

/// Where a secret or a config comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Supply {
    /// A file of the host, mounted.
    File(PathBuf),
    /// A text, written into each container.
    Text(String),
    /// A variable's value, likewise.
    Variable(String, String),
}

/// Without what is secret.
impl std::fmt::Debug for Supply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text"),
            Self::Variable(name, _) => f.debug_tuple("Variable").field(name).finish(),
        }
    }
}

/// PURE: one of the two sections.
pub(crate) fn read(
    root: &mut Fields<'_>,
    section: &'static str,
    around: &Around<'_>,
) -> Result<BTreeMap<String, Supply>> {
    let mut all = BTreeMap::new();
    for (key, node) in entries(root, section)? {
        let mut fields = Fields::of(node, format!("{section}.{key}"))?;
        let (file, variable) = (fields.text("file")?, fields.text("environment")?);
        let content = if section == "configs" { fields.text("content")? } else { None };
        // Only their name: it is the key that services use. Notes for people.
        fields.take("name");
        fields.take("labels");
        fields.finish(&["driver", "driver_opts", "external", "template_driver"])?;
        let supply = match (file, variable, content) {
            (Some(file), None, None) => Supply::File(around.path(&file)),
            (None, Some(name), None) => match (around.variable)(&name) {
                Some(value) => Supply::Variable(name, value),
                None => {
                    let key = format!("{section}.{key}.environment");
                    return Err(wrong(node, &key, &format!("a variable that is set: {name} is not")));
                }
            },
            (None, None, Some(text)) => Supply::Text(text),
            _ if section == "configs" => {
                let wanted = "a mapping with one of file, environment and content";
                return Err(wrong(node, &format!("{section}.{key}"), wanted));
            }
            _ => {
                let wanted = "a mapping with a file or an environment";
                return Err(wrong(node, &format!("{section}.{key}"), wanted));
            }
        };
        all.insert(key.to_owned(), supply);
    }
    Ok(all)
}
