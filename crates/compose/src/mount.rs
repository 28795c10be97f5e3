//! `volumes`, `secrets` and `configs` of a service.

use crate::error::{Place, Result};
use crate::fields::{Fields, items, text, wrong};
use crate::node::Value;
use crate::project::Around;

/// Something mounted into a service's containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is said.
    pub place: Place,
    /// What.
    pub source: Source,
    /// Where inside.
    pub target: String,
    /// What is said besides, as `-v` takes it (`ro`, `nocopy`) or, for [`Source::Flag`], nothing.
    pub options: Vec<String>,
    /// A directory of a volume in place of all of it.
    pub subpath: Option<String>,
    /// Of a secret or a config.
    pub rights: Rights,
}

/// Whose a file is, and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// Root's, if nothing is said.
    pub uid: Option<u32>,
    /// Likewise.
    pub gid: Option<u32>,
    /// Everybody may read it, if nothing is said.
    pub mode: Option<u32>,
}

impl Rights {
    fn read(entry: &mut Fields<'_>, name: &str) -> Result<Self> {
        let (uid, gid) = (entry.number("uid")?, entry.number("gid")?);
        let mode = match entry.take("mode") {
            None => None,
            Some(node) => {
                let digits = text(node, name)?;
                let digits = digits.strip_prefix("0o").unwrap_or(&digits);
                let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
                Some(mode.ok_or_else(|| wrong(node, &format!("{name}.mode"), "octal digits, such as 0440"))?)
            }
        };
        Ok(Self { uid, gid, mode })
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path of the host, absolute.
    Path(String),
    /// A volume of the project, by key.
    Volume(String),
    /// A volume without a name.
    Anonymous,
    /// A flag of `create` that needs nothing else.
    Flag(String),
    /// A secret of the project, by key.
    Secret(String),
    /// A config of the project, by key.
    Config(String),
}

pub(crate) fn read(fields: &mut Fields<'_>, around: &Around<'_>) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    let name = fields.name("volumes");
    for item in fields.take("volumes").map(items).unwrap_or_default() {
        let place = item.place.clone();
        mounts.push(match item.value {
            Value::Map(_) => long(Fields::of(item, name.clone())?, around)?,
            _ => short(&text(item, &name)?, place, around),
        });
    }
    for (key, prefix) in [("secrets", "/run/secrets/"), ("configs", "/")] {
        let name = fields.name(key);
        for item in fields.take(key).map(items).unwrap_or_default() {
            let (source, target, rights) = match item.value {
                Value::Map(_) => {
                    let mut entry = Fields::of(item, name.clone())?;
                    let source = entry.text("source")?;
                    let target = entry.text("target")?;
                    let rights = Rights::read(&mut entry, &name)?;
                    entry.finish(&[])?;
                    (source.ok_or_else(|| wrong(item, &name, "a mapping with a source"))?, target, rights)
                }
                _ => (text(item, &name)?, None, Rights::default()),
            };
            let target = target.unwrap_or_else(|| source.clone());
            let target = if target.starts_with('/') { target } else { format!("{prefix}{target}") };
            let source = if key == "secrets" { Source::Secret(source) } else { Source::Config(source) };
            let options = vec!["ro".to_owned()];
            mounts.push(Mount { rights, ..mount(item.place.clone(), source, target, options) });
        }
    }
    Ok(mounts)
}

/// PURE: a field of `--mount`, whatever is in it.
pub(crate) fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

/// `[source:]target[:options]`.
fn short(text: &str, place: Place, around: &Around<'_>) -> Mount {
    let mut parts = text.splitn(3, ':');
    let (first, second, options) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let Some(target) = second else {
        return mount(place, Source::Anonymous, first.to_owned(), Vec::new());
    };
    let is_path = first.starts_with(['/', '.', '~']);
    let source = if is_path {
        Source::Path(around.path(first).to_string_lossy().into_owned())
    } else {
        Source::Volume(first.to_owned())
    };
    let options = options.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or_default();
    mount(place, source, target.to_owned(), options)
}

fn mount(place: Place, source: Source, target: String, options: Vec<String>) -> Mount {
    Mount { place, source, target, options, subpath: None, rights: Rights::default() }
}

fn long(mut fields: Fields<'_>, around: &Around<'_>) -> Result<Mount> {
    let node = fields.node;
    let name = fields.name("type");
    let kind = fields.text("type")?.unwrap_or_else(|| "volume".to_owned());
    let target = fields.text("target")?;
    let target = target.ok_or_else(|| wrong(node, &fields.name("target"), "there"))?;
    let source = fields.text("source")?;
    let mut subpath = None;
    let mut options = Vec::new();
    if fields.flag("read_only")? {
        options.push("ro".to_owned());
    }
    // Of no meaning on Linux.
    fields.take("consistency");
    let path = |source: Option<String>| {
        let source = source.ok_or_else(|| wrong(node, &name, "a type that needs no source, or have one"))?;
        Ok(around.path(&source).to_string_lossy().into_owned())
    };
    let source = match kind.as_str() {
        "bind" => {
            let (mut create, mut propagation) = (true, None);
            if let Some(node) = fields.take("bind") {
                let mut bind = Fields::of(node, fields.name("bind"))?;
                create = bind.flag_if_any("create_host_path")?.unwrap_or(true);
                propagation = bind.text("propagation")?;
                // Labels of SELinux, as `-v` takes them.
                bind.take("selinux");
                bind.finish(&["recursive"])?;
            }
            let source = path(source)?;
            if create {
                options.extend(propagation);
                Source::Path(source)
            } else {
                let read_only = if options.is_empty() { "" } else { ",readonly" };
                let propagation =
                    propagation.map(|how| format!(",bind-propagation={how}")).unwrap_or_default();
                Source::Flag(format!(
                    "--mount=type=bind,{},{}{read_only}{propagation}",
                    quoted(&format!("source={source}")),
                    quoted(&format!("target={target}"))
                ))
            }
        }
        "volume" => {
            if let Some(node) = fields.take("volume") {
                let mut volume = Fields::of(node, fields.name("volume"))?;
                if volume.flag("nocopy")? {
                    options.push("nocopy".to_owned());
                }
                subpath = volume.text("subpath")?;
                volume.finish(&["labels"])?;
            }
            source.map_or(Source::Anonymous, Source::Volume)
        }
        "tmpfs" => {
            let mut words = String::new();
            if let Some(node) = fields.take("tmpfs") {
                let mut tmpfs = Fields::of(node, fields.name("tmpfs"))?;
                words.extend(tmpfs.text("size")?.map(|size| format!(",tmpfs-size={size}")));
                words.extend(tmpfs.text("mode")?.map(|mode| format!(",tmpfs-mode={mode}")));
                tmpfs.finish(&[])?;
            }
            Source::Flag(format!("--mount=type=tmpfs,target={target}{words}"))
        }
        other => return Err(crate::fields::unsupported(node, format!("{name} {other}"))),
    };
    fields.finish(&[])?;
    Ok(Mount { subpath, ..mount(node.place.clone(), source, target, options) })
}
