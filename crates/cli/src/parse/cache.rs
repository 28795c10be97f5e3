//! `--cache-from` and `--cache-to` of builds.

use std::path::PathBuf;

use cata_engine::build::{CachePlace, CacheTarget};
use cata_spec::Reference;

use super::{ParseError, Parsed};

/// Caches that need a service that this version does not speak to.
const ELSEWHERE: [&str; 3] = ["gha", "s3", "azblob"];

/// `type=registry,ref=…`, `type=local,src=…`, or a reference alone.
pub(crate) fn from(text: &str) -> Parsed<CachePlace> {
    let fields = fields(text)?;
    match place(text, &fields, "src")? {
        CachePlace::Inline => Err(ParseError::new(format!(
            "--cache-from {text}: an inline cache comes with the image: type=registry,ref=IMAGE"
        ))),
        place => Ok(place),
    }
}

/// `type=registry,ref=…`, `type=local,dest=…`, `type=inline`, each with `mode=min|max` and `ignore-error=true`.
pub(crate) fn to(text: &str) -> Parsed<CacheTarget> {
    let fields = fields(text)?;
    let place = place(text, &fields, "dest")?;
    let all = match get(&fields, "mode") {
        None | Some("min") => false,
        Some("max") if place == CachePlace::Inline => {
            return Err(ParseError::new(format!("--cache-to {text}: an inline cache is of mode min")));
        }
        Some("max") => true,
        Some(other) => {
            return Err(ParseError::new(format!("--cache-to {text}: mode {other} is not min or max")));
        }
    };
    let forgiving = matches!(get(&fields, "ignore-error"), Some("true" | "1"));
    Ok(CacheTarget { place, all, forgiving })
}

type Fields<'t> = Vec<(&'t str, &'t str)>;

fn fields(text: &str) -> Parsed<Fields<'_>> {
    if !text.contains('=') {
        return Ok(vec![("type", "registry"), ("ref", text)]);
    }
    let split = |field| {
        str::split_once(field, '=')
            .ok_or_else(|| ParseError::new(format!("{text}: {field} is not name=value")))
    };
    text.split(',').map(split).collect()
}

fn get<'t>(fields: &Fields<'t>, name: &str) -> Option<&'t str> {
    fields.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn place(text: &str, fields: &Fields<'_>, directory: &str) -> Parsed<CachePlace> {
    let wrong = |why: String| ParseError::new(format!("{text}: {why}"));
    let own = ["type", "ref", directory, "mode", "ignore-error"];
    if let Some((name, _)) = fields.iter().find(|(name, _)| !own.contains(name)) {
        return Err(wrong(format!("`{name}` is not supported")));
    }
    let needed = |name: &str| {
        get(fields, name).filter(|v| !v.is_empty()).ok_or_else(|| wrong(format!("{name}=… is missing")))
    };
    match get(fields, "type").unwrap_or("registry") {
        "registry" => {
            let reference = Reference::parse(needed("ref")?).map_err(|e| wrong(e.to_string()))?;
            Ok(CachePlace::Registry(reference))
        }
        "local" => Ok(CachePlace::Local(PathBuf::from(needed(directory)?))),
        "inline" => Ok(CachePlace::Inline),
        other if ELSEWHERE.contains(&other) => {
            Err(wrong(format!("a cache of type {other} is not supported: use registry or local")))
        }
        other => Err(wrong(format!("type {other} is not registry, local or inline"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cata_engine::build::CachePlace;

    use super::{from, to};

    #[test]
    fn caches_are_dockers() {
        let reference = cata_spec::Reference::parse("r.example/app:cache").unwrap();
        assert_eq!(from("r.example/app:cache"), Ok(CachePlace::Registry(reference.clone())));
        assert_eq!(from("type=registry,ref=r.example/app:cache"), Ok(CachePlace::Registry(reference)));
        assert_eq!(from("type=local,src=/c"), Ok(CachePlace::Local(PathBuf::from("/c"))));
        let target = to("type=local,dest=/c,mode=max,ignore-error=true").unwrap();
        assert!(target.all && target.forgiving);
        assert_eq!(to("type=inline").unwrap().place, CachePlace::Inline);
        for bad in
            ["type=local", "type=local,dest=/c", "type=gha", "type=inline", "type=registry,ref=UP", "x=1"]
        {
            assert!(from(bad).is_err(), "{bad}");
        }
        assert!(to("type=inline,mode=max").is_err() && to("type=local,dest=/c,mode=most").is_err());
    }
}
