//! `--mount type=bind|volume|tmpfs,source=…,target=…,…`.

use cata_engine::request::{MountRequest, MountSource};

use super::{ParseError, Parsed, boolean, size, volume};

/// What was typed, field by field.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: bool,
    propagation: Option<String>,
    recursive: Option<bool>,
    create: bool,
    no_copy: bool,
    subpath: Option<String>,
    tmpfs_size: Option<u64>,
    tmpfs_mode: Option<u32>,
}

/// One `--mount`. `current_dir` is what a relative bind source is relative to.
pub(crate) fn parse(text: &str, current_dir: &str) -> Parsed<MountRequest> {
    let mut fields = Fields::default();
    for field in csv(text)? {
        fields.set(&field)?;
    }
    fields.into_request(current_dir)
}

impl Fields {
    fn set(&mut self, field: &str) -> Parsed<()> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let flag = || match value {
            None => Ok(true),
            Some(value) => boolean::parse(value)
                .map_err(|_| ParseError::new(format!("invalid value for {key}: {value}"))),
        };
        let key = key.to_ascii_lowercase();
        match key.as_str() {
            "readonly" | "ro" => self.read_only = flag()?,
            "bind-create-src" => self.create = flag()?,
            "volume-nocopy" => self.no_copy = flag()?,
            _ => {
                let value = value.ok_or_else(|| {
                    ParseError::new(format!("invalid field '{field}' must be a key=value pair"))
                })?;
                self.set_valued(&key, value)?;
            }
        }
        Ok(())
    }

    fn set_valued(&mut self, key: &str, value: &str) -> Parsed<()> {
        match key {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => self.target = Some(value.to_owned()),
            "bind-propagation" => {
                if !volume::PROPAGATION.contains(&value) {
                    return Err(ParseError::new(format!("invalid propagation mode: {value}")));
                }
                self.propagation = Some(value.to_owned());
            }
            "bind-recursive" => {
                self.recursive = Some(match value {
                    "enabled" => true,
                    "disabled" => false,
                    _ => {
                        return Err(ParseError::new(format!(
                            "bind-recursive '{value}' is not supported yet"
                        )));
                    }
                });
            }
            "bind-nonrecursive" => self.recursive = Some(!boolean::parse(value)?),
            "volume-subpath" => self.subpath = Some(value.to_owned()),
            "tmpfs-size" => self.tmpfs_size = Some(size::binary(value)?),
            "tmpfs-mode" => self.tmpfs_mode = Some(volume::octal(value)?),
            "consistency" => {}
            "volume-driver" if value == "local" => {}
            "volume-driver" | "volume-opt" | "volume-label" | "image-subpath" => {
                return Err(ParseError::new(format!("mount option '{key}' is not supported yet")));
            }
            _ => return Err(ParseError::new(format!("unexpected key '{key}' in '{key}={value}'"))),
        }
        Ok(())
    }

    fn into_request(self, current_dir: &str) -> Parsed<MountRequest> {
        let target = self.target.clone().ok_or_else(|| ParseError::new("target is required"))?;
        if !target.starts_with('/') {
            return Err(ParseError::new(format!(
                "invalid mount path: '{target}' mount path must be absolute"
            )));
        }
        let kind = self.kind.clone().unwrap_or_else(|| "volume".to_owned());
        self.only_for(&kind)?;
        let source = match kind.as_str() {
            "bind" => {
                let typed = self.source.filter(|s| !s.is_empty());
                let typed = typed.ok_or_else(|| ParseError::new("source is required when type is bind"))?;
                MountSource::Bind {
                    path: volume::absolute(&typed, current_dir),
                    create: self.create,
                    propagation: self.propagation,
                    recursive: self.recursive.unwrap_or(true),
                }
            }
            "volume" => MountSource::Volume {
                name: volume::volume_name(self.source.as_deref().unwrap_or_default())?,
                subpath: self.subpath,
                no_copy: self.no_copy,
            },
            "tmpfs" => {
                if self.source.is_some() {
                    return Err(ParseError::new("source is not allowed when type is tmpfs"));
                }
                MountSource::Tmpfs { size: self.tmpfs_size, mode: self.tmpfs_mode, options: Vec::new() }
            }
            "image" | "npipe" | "cluster" => {
                return Err(ParseError::new(format!("mount type '{kind}' is not supported yet")));
            }
            _ => return Err(ParseError::new(format!("mount type unknown: '{kind}'"))),
        };
        Ok(MountRequest { source, target, read_only: self.read_only })
    }

    /// Options of one type are refused with another.
    fn only_for(&self, kind: &str) -> Parsed<()> {
        let bind = self.propagation.is_some() || self.recursive.is_some() || self.create;
        let volume = self.no_copy || self.subpath.is_some();
        let tmpfs = self.tmpfs_size.is_some() || self.tmpfs_mode.is_some();
        for (used, owner) in [(bind, "bind"), (volume, "volume"), (tmpfs, "tmpfs")] {
            if used && kind != owner {
                return Err(ParseError::new(format!(
                    "cannot mix '{owner}-*' options with mount type '{kind}'"
                )));
            }
        }
        Ok(())
    }
}

/// Fields of a comma separated line; a field in double quotes may hold commas, a doubled quote is one.
pub(crate) fn csv(text: &str) -> Parsed<Vec<String>> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    if quoted {
        return Err(ParseError::new(format!("unclosed quote in '{text}'")));
    }
    fields.push(field);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use cata_engine::request::MountSource;
    use proptest::prelude::*;

    use super::parse;

    #[test]
    fn parse_reads_a_bind() {
        let mount = parse("type=bind,src=x,dst=/y,readonly,bind-propagation=rslave", "/home").unwrap();
        let MountSource::Bind { path, create, propagation, recursive } = mount.source else {
            panic!("not a bind")
        };
        assert_eq!(path.to_str(), Some("/home/x"));
        assert!(!create && recursive && mount.read_only);
        assert_eq!(propagation.as_deref(), Some("rslave"));
    }

    #[test]
    fn parse_reads_volumes_and_quotes() {
        let mount = parse("\"target=/a,b\",source=pg,volume-subpath=s,volume-nocopy=true", "/").unwrap();
        assert_eq!(mount.target, "/a,b");
        let MountSource::Volume { name, subpath, no_copy } = mount.source else { panic!("not a volume") };
        assert_eq!(name.unwrap().as_str(), "pg");
        assert_eq!(subpath.as_deref(), Some("s"));
        assert!(no_copy);
    }

    #[test]
    fn parse_names_what_is_wrong() {
        let forms = [
            "type=bind,target=/x",
            "type=bind,source=/x",
            "type=disk,target=/x",
            "type=image,target=/x",
            "type=tmpfs,target=/x,source=/y",
            "type=tmpfs,target=/x,volume-nocopy",
            "target=/x,colour=blue",
            "target=/x,colour",
            "target=x",
            "target=/x,volume-opt=o=bind",
            "type=bind,source=/a,target=/x,readonly=maybe",
        ];
        let lines: Vec<String> =
            forms.iter().map(|form| format!("{form} => {}", parse(form, "/").unwrap_err())).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        type=bind,target=/x => source is required when type is bind
        type=bind,source=/x => target is required
        type=disk,target=/x => mount type unknown: 'disk'
        type=image,target=/x => mount type 'image' is not supported yet
        type=tmpfs,target=/x,source=/y => source is not allowed when type is tmpfs
        type=tmpfs,target=/x,volume-nocopy => cannot mix 'volume-*' options with mount type 'tmpfs'
        target=/x,colour=blue => unexpected key 'colour' in 'colour=blue'
        target=/x,colour => invalid field 'colour' must be a key=value pair
        target=x => invalid mount path: 'x' mount path must be absolute
        target=/x,volume-opt=o=bind => mount option 'volume-opt' is not supported yet
        type=bind,source=/a,target=/x,readonly=maybe => invalid value for readonly: maybe
        ");
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in ".{0,40}") {
            let _ = parse(&text, "/");
        }
    }
}
