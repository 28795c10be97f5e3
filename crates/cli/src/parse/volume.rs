//! `-v [source:]target[:options]` and `--tmpfs target[:options]`.

use std::path::PathBuf;

use cata_engine::request::{Lender, MountRequest, MountSource};
use cata_spec::Name;

use super::{ParseError, Parsed, size};

/// One `-v`. `current_dir` is what a source that begins with a dot is relative to.
pub(crate) fn parse(text: &str, current_dir: &str) -> Parsed<MountRequest> {
    let invalid = |why: &str| ParseError::new(format!("invalid volume specification: '{text}': {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => ("", *target, ""),
        [source, target] if target.starts_with('/') => (*source, *target, ""),
        // `/data:ro`: a volume without a name.
        [target, options] if target.starts_with('/') && is_options(options) => ("", *target, *options),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(invalid("too many colons")),
    };
    if parts.len() > 1 && parts.iter().any(|part| part.is_empty()) {
        return Err(invalid("empty section between colons"));
    }
    if !target.starts_with('/') {
        return Err(invalid("mount path must be absolute"));
    }
    if target.split('/').all(|part| part.is_empty() || part == ".") {
        return Err(invalid("destination can't be '/'"));
    }
    let options = Options::parse(text, options)?;
    if source.starts_with(['/', '.']) {
        if options.no_copy {
            return Err(invalid("nocopy is for volumes, not for host paths"));
        }
        return Ok(MountRequest {
            source: MountSource::Bind {
                path: absolute(source, current_dir),
                create: true,
                propagation: options.propagation,
                recursive: true,
            },
            target: target.to_owned(),
            read_only: options.read_only,
        });
    }
    if options.propagation.is_some() {
        return Err(invalid("propagation is for host paths, not for volumes"));
    }
    Ok(MountRequest {
        source: MountSource::Volume { name: volume_name(source)?, subpath: None, no_copy: options.no_copy },
        target: target.to_owned(),
        read_only: options.read_only,
    })
}

/// A volume's name; none for an empty one.
pub(crate) fn volume_name(source: &str) -> Parsed<Option<Name>> {
    if source.is_empty() {
        return Ok(None);
    }
    Name::parse(source).map(Some).map_err(|_| {
        ParseError::new(format!(
            "create {source}: \"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        ))
    })
}

/// One `--tmpfs`.
pub(crate) fn tmpfs(text: &str) -> Parsed<MountRequest> {
    let (target, typed) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err(ParseError::new(format!("invalid tmpfs '{text}': mount path must be absolute")));
    }
    let (mut bytes, mut mode, mut read_only, mut options) = (None, None, false, Vec::new());
    for option in typed.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) if value.ends_with('%') => options.push(option.to_owned()),
            Some(("size", value)) => bytes = Some(size::binary(value)?),
            Some(("mode", value)) => mode = Some(octal(value)?),
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks", _)) => options.push(option.to_owned()),
            None if option == "ro" => read_only = true,
            None if option == "rw" => read_only = false,
            None if TMPFS_WORDS.contains(&option) => options.push(option.to_owned()),
            _ => return Err(ParseError::new(format!("invalid tmpfs option [\"{option}\"]"))),
        }
    }
    Ok(MountRequest {
        source: MountSource::Tmpfs { size: bytes, mode, options },
        target: target.to_owned(),
        read_only,
    })
}

const TMPFS_WORDS: [&str; 14] = [
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "sync",
    "async",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "strictatime",
];

/// Permission bits in octal.
pub(crate) fn octal(text: &str) -> Parsed<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| ParseError::new(format!("invalid mode '{text}': must be octal")))
}

/// `container[:mode]` of `--volumes-from`.
pub(crate) fn lender(text: &str) -> Parsed<Lender> {
    let (container, mode) = text.split_once(':').unwrap_or((text, ""));
    let read_only = match mode {
        // As for `-v`.
        "" | "rw" | "z" | "Z" => false,
        "ro" => true,
        mode => return Err(ParseError::new(format!("invalid mode for volumes-from: {mode}"))),
    };
    if container.is_empty() {
        return Err(ParseError::new("invalid volumes-from: the container's name is empty"));
    }
    Ok(Lender { container: container.to_owned(), read_only })
}

/// Makes a path absolute as a shell would see it, without looking at the disk.
pub(crate) fn absolute(path: &str, current_dir: &str) -> PathBuf {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{current_dir}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    PathBuf::from(format!("/{}", parts.join("/")))
}

#[derive(Default)]
struct Options {
    read_only: bool,
    no_copy: bool,
    propagation: Option<String>,
}

impl Options {
    fn parse(text: &str, typed: &str) -> Parsed<Self> {
        let mut options = Self::default();
        for option in typed.split(',').filter(|o| !o.is_empty()) {
            match option {
                "ro" | "readonly" => options.read_only = true,
                // SELinux labels (z, Z) mean nothing on hosts without SELinux; consistency words never do on Linux.
                "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
                "nocopy" => options.no_copy = true,
                _ if PROPAGATION.contains(&option) => options.propagation = Some(option.to_owned()),
                _ => {
                    return Err(ParseError::new(format!(
                        "invalid volume specification: '{text}': invalid mode: {option}"
                    )));
                }
            }
        }
        Ok(options)
    }
}

/// How mounts below travel between host and container.
pub(crate) const PROPAGATION: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

fn is_options(text: &str) -> bool {
    !text.is_empty() && Options::parse("", text).is_ok()
}

#[cfg(test)]
mod tests {
    use cata_engine::request::MountSource;
    use proptest::prelude::*;

    use super::{absolute, parse, tmpfs};

    fn show(text: &str) -> String {
        match parse(text, "/home/me") {
            Err(error) => format!("error: {error}"),
            Ok(mount) => {
                let mode = if mount.read_only { " ro" } else { "" };
                let source = match mount.source {
                    MountSource::Bind { path, propagation, .. } => {
                        format!(
                            "bind {}{}",
                            path.display(),
                            propagation.map_or(String::new(), |p| format!(" {p}"))
                        )
                    }
                    MountSource::Volume { name, no_copy, .. } => {
                        format!(
                            "volume {}{}",
                            name.map_or("(new)".to_owned(), |n| n.to_string()),
                            if no_copy { " nocopy" } else { "" }
                        )
                    }
                    MountSource::Tmpfs { .. } => "tmpfs".to_owned(),
                };
                format!("{source} at {}{mode}", mount.target)
            }
        }
    }

    #[test]
    fn parse_follows_dockers_rules() {
        let forms = [
            "/data",
            "/data:ro",
            "pgdata:/data",
            "pgdata:/data:ro,nocopy",
            "/srv:/data:z",
            "/srv:/data:ro,rshared",
            "./x/../y:/data",
            ".:/data",
            "a b:/data",
            "pgdata:data",
            "x:/",
            "/srv:/data:rx",
            "/a:/b:ro:z",
            ":/data",
            "data:/d:rshared",
            "",
        ];
        let lines: Vec<String> = forms.iter().map(|form| format!("{form} => {}", show(form))).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        /data => volume (new) at /data
        /data:ro => volume (new) at /data ro
        pgdata:/data => volume pgdata at /data
        pgdata:/data:ro,nocopy => volume pgdata nocopy at /data ro
        /srv:/data:z => bind /srv at /data
        /srv:/data:ro,rshared => bind /srv rshared at /data ro
        ./x/../y:/data => bind /home/me/y at /data
        .:/data => bind /home/me at /data
        a b:/data => error: create a b: "a b" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path
        pgdata:data => error: invalid volume specification: 'pgdata:data': mount path must be absolute
        x:/ => error: invalid volume specification: 'x:/': destination can't be '/'
        /srv:/data:rx => error: invalid volume specification: '/srv:/data:rx': invalid mode: rx
        /a:/b:ro:z => error: invalid volume specification: '/a:/b:ro:z': too many colons
        :/data => error: invalid volume specification: ':/data': empty section between colons
        data:/d:rshared => error: invalid volume specification: 'data:/d:rshared': propagation is for host paths, not for volumes
         => error: invalid volume specification: '': mount path must be absolute
        "#);
    }

    #[test]
    fn tmpfs_reads_size_mode_and_words() {
        let mount = tmpfs("/run:size=64m,mode=1777,noexec,uid=5,ro").unwrap();
        let MountSource::Tmpfs { size, mode, options } = mount.source else { panic!("not a tmpfs") };
        assert_eq!((size, mode), (Some(64 << 20), Some(0o1777)));
        assert_eq!(options, ["noexec", "uid=5"]);
        assert!(mount.read_only);
        for bad in ["run", "/run:size=x", "/run:mode=9", "/run:shiny"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "[a-z/:.,~ ]{0,24}") {
            let _ = parse(&text, "/");
        }

        #[test]
        fn absolute_never_leaves_dots(path in "(\\.\\.?/|[a-z]{1,3}/){0,6}") {
            let path = absolute(&path, "/x");
            prop_assert!(path.is_absolute());
            prop_assert!(!path.to_str().unwrap().split('/').any(|p| p == ".." || p == "."));
        }
    }
}
