//! PURE: small languages within instructions: ports, modes, mounts, paths.

use crate::error::{Error, Result};

/// `EXPOSE`: `80`, `53/udp`, `8000-8010/tcp`; each as `port/protocol`. An address or a port of the host in front means
/// nothing in an image; the lint speaks of it.
///
/// # Errors
/// Not a port.
pub fn ports(word: &str) -> Result<Vec<String>> {
    let bad = || Error::new(format!("invalid port `{word}`")).at(word).hint("EXPOSE 80, 53/udp or 8000-8010");
    let own = word.rsplit_once(':').map_or(word, |(_, own)| own);
    let (range, protocol) = own.split_once('/').unwrap_or((own, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad);
    let (low, high) = (port(low)?, port(high)?);
    if high < low {
        return Err(bad());
    }
    Ok((low..=high).map(|port| format!("{port}/{protocol}")).collect())
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// `755`.
    Octal(u32),
    /// `u=rwX,go=rX`.
    Symbolic(Vec<Clause>),
}

/// One clause of a symbolic mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Masks of the classes it is about, 0o700 for `u` and so on.
    who: u32,
    operator: char,
    read: bool,
    write: bool,
    execute: bool,
    /// `X`: if a directory, or executable for somebody.
    search: bool,
    set_id: bool,
    sticky: bool,
    /// `g=u`: the permissions of another class, by how far its bits are shifted.
    of: Option<u32>,
}

impl Mode {
    /// Reads a mode.
    ///
    /// # Errors
    /// Neither octal nor symbolic.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            ))
            .at(text)
            .hint("755, or u=rwX,go=rX")
        };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).map_err(|_| bad())?;
            return if mode <= 0o7777 { Ok(Self::Octal(mode)) } else { Err(bad()) };
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
        clauses.map(|clauses| Self::Symbolic(clauses.concat())).ok_or_else(bad)
    }

    /// The mode of directories that are made on the way.
    #[must_use]
    pub fn of_directories(&self) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(_) => 0o755,
        }
    }

    /// The mode of something that had another one.
    #[must_use]
    pub fn apply(&self, old: u32, directory: bool) -> u32 {
        let clauses = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(clauses) => clauses,
        };
        let mut mode = old & 0o7777;
        for clause in clauses {
            let execute = clause.execute || (clause.search && (directory || mode & 0o111 != 0));
            let copied = clause.of.map_or(0, |shift| (mode >> shift & 0o7) * 0o111);
            let each = (u32::from(clause.read) * 0o444)
                | (u32::from(clause.write) * 0o222)
                | (u32::from(execute) * 0o111)
                | copied;
            let mut bits = each & clause.who;
            if clause.set_id {
                bits |= ((clause.who & 0o100) << 5) | ((clause.who & 0o010) << 7);
            }
            if clause.sticky {
                bits |= 0o1000;
            }
            mode = match clause.operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !clause.who) | bits,
            };
        }
        mode
    }
}

/// `u+r`, `go=u`, `u+r-w`.
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let at = text.find(OPERATORS)?;
    let mut who = 0;
    for class in text[..at].chars() {
        who |= match class {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return None,
        };
    }
    if who == 0 {
        who = 0o777;
    }
    let mut found = Vec::new();
    let mut rest = &text[at..];
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(OPERATORS).map_or(rest.len(), |next| next + 1);
        found.push(clause(who, operator, &rest[1..end])?);
        rest = &rest[end..];
    }
    Some(found)
}

const OPERATORS: [char; 3] = ['+', '-', '='];

fn clause(who: u32, operator: char, permissions: &str) -> Option<Clause> {
    let mut clause = Clause {
        who,
        operator,
        read: false,
        write: false,
        execute: false,
        search: false,
        set_id: false,
        sticky: false,
        of: None,
    };
    clause.of = match permissions {
        "u" => Some(6),
        "g" => Some(3),
        "o" => Some(0),
        _ => None,
    };
    if clause.of.is_some() {
        return Some(clause);
    }
    for permission in permissions.chars() {
        match permission {
            'r' => clause.read = true,
            'w' => clause.write = true,
            'x' => clause.execute = true,
            'X' => clause.search = true,
            's' => clause.set_id = true,
            't' => clause.sticky = true,
            _ => return None,
        }
    }
    Some(clause)
}

/// A path within the image, made absolute by the working directory; `.` and `..` resolved, no slash at its
/// end.
#[must_use]
pub fn absolute(workdir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{workdir}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; absolute. Empty for a secret that is an environment variable only.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
}

impl Mount {
    /// The stage, image or named context that it shows or begins with.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        match &self.kind {
            MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.as_deref(),
            _ => None,
        }
    }
}

/// What a RUN mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// Of the context (`from` absent), a stage, an image or a named context.
    Bind {
        /// `from`.
        from: Option<String>,
        /// Within it.
        source: String,
    },
    /// A directory that outlives the build.
    Cache {
        /// Which.
        id: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// What it begins with.
        from: Option<String>,
        /// Within `from`.
        source: String,
        /// Of a new one.
        mode: u32,
        /// Of a new one.
        uid: u32,
        /// Of a new one.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
    },
    /// A file that is in no layer.
    Secret {
        /// Which of `--secret`.
        id: String,
        /// Whether it must be there.
        required: bool,
        /// Of the file.
        mode: u32,
        /// Of the file.
        uid: u32,
        /// Of the file.
        gid: u32,
        /// Given as this variable too (instead, without `target`).
        env: Option<String>,
    },
    /// The socket of an agent.
    Ssh {
        /// Which of `--ssh`.
        id: String,
        /// Whether it must be there.
        required: bool,
        /// Of the socket.
        mode: u32,
        /// Of the socket.
        uid: u32,
        /// Of the socket.
        gid: u32,
    },
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Sharing {
    Shared,
    Private,
    Locked,
}

/// The fields of a `--mount`.
struct Fields<'f> {
    text: &'f str,
    kind: String,
    list: Vec<(String, Option<String>)>,
}

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.list.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| value.clone())
    }

    /// A field that is on or off.
    fn on(&self, name: &str) -> Result<Option<bool>> {
        match self.list.iter().rev().find(|(known, _)| known == name) {
            None => Ok(None),
            Some((_, None)) => Ok(Some(true)),
            Some((_, Some(value))) => match value.as_str() {
                "true" | "1" => Ok(Some(true)),
                "false" | "0" => Ok(Some(false)),
                other => Err(Error::new(format!("invalid value for {name}: {other}")).at(other)),
            },
        }
    }

    fn number(&self, name: &str, radix: u32, default: u32) -> Result<u32> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => u32::from_str_radix(&value, radix)
                .map_err(|_| Error::new(format!("invalid value for {name}: {value}")).at(value)),
        }
    }

    /// A place that is not the root itself.
    fn needs(&self, target: Option<String>) -> Result<String> {
        target.filter(|target| target != "/").ok_or_else(|| {
            Error::new(format!("a {} mount needs a target other than /", self.kind)).at(self.text)
        })
    }

    fn source(&self) -> String {
        self.get("source").unwrap_or_else(|| "/".to_owned())
    }
}

/// Takes the fields apart and refuses what the type does not have.
fn fields(text: &str) -> Result<Fields<'_>> {
    let mut list: Vec<(String, Option<String>)> = Vec::new();
    for field in csv(text) {
        let (name, value) = match field.split_once('=') {
            Some((name, value)) => (name.trim().to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        let name = match name.as_str() {
            "src" => "source".to_owned(),
            "dst" | "destination" => "target".to_owned(),
            "ro" => "readonly".to_owned(),
            "rw" => "readwrite".to_owned(),
            _ => name,
        };
        list.push((name, value));
    }
    let mut fields = Fields { text, kind: String::new(), list };
    fields.kind = fields.get("type").unwrap_or_else(|| "bind".to_owned());
    let known: &[&str] = match fields.kind.as_str() {
        "bind" => &["type", "from", "source", "target", "readonly", "readwrite"],
        "cache" => &[
            "type",
            "id",
            "target",
            "sharing",
            "from",
            "source",
            "mode",
            "uid",
            "gid",
            "readonly",
            "readwrite",
        ],
        "tmpfs" => &["type", "target", "size"],
        "secret" => &["type", "id", "source", "target", "required", "mode", "uid", "gid", "env"],
        "ssh" => &["type", "id", "target", "required", "mode", "uid", "gid"],
        other => {
            return Err(Error::new(format!("unsupported mount type {other:?}"))
                .at(text)
                .hint("bind, cache, tmpfs, secret or ssh"));
        }
    };
    if let Some((name, _)) = fields.list.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        return Err(Error::new(format!("unexpected key '{name}' for mount type '{}'", fields.kind))
            .at(name.clone())
            .hint(format!("it has {}", known[1..].join(", "))));
    }
    Ok(fields)
}

/// Reads `--mount`, its fields already expanded.
///
/// # Errors
/// Unknown fields and types; fields that the type does not have; what is missing.
pub fn mount(text: &str, workdir: &str) -> Result<Mount> {
    let fields = fields(text)?;
    let target = fields.get("target").map(|path| absolute(workdir, &path));
    let writable = fields.on("readwrite")?.or(fields.on("readonly")?.map(|read_only| !read_only));
    match fields.kind.as_str() {
        "bind" => Ok(Mount {
            kind: MountKind::Bind { from: fields.get("from"), source: fields.source() },
            target: fields.needs(target)?,
            read_only: !writable.unwrap_or(false),
        }),
        "cache" => cache(&fields, target, !writable.unwrap_or(true)),
        "tmpfs" => {
            let size = fields.get("size").map(|text| size(&text)).transpose()?;
            Ok(Mount { kind: MountKind::Tmpfs { size }, target: fields.needs(target)?, read_only: false })
        }
        "secret" => secret(&fields, target),
        _ => {
            let kind = MountKind::Ssh {
                id: fields.get("id").unwrap_or_else(|| "default".into()),
                required: fields.on("required")?.unwrap_or(false),
                mode: fields.number("mode", 8, 0o600)?,
                uid: fields.number("uid", 10, 0)?,
                gid: fields.number("gid", 10, 0)?,
            };
            Ok(Mount { kind, target: target.unwrap_or_default(), read_only: false })
        }
    }
}

fn cache(fields: &Fields<'_>, target: Option<String>, read_only: bool) -> Result<Mount> {
    let target = fields.needs(target)?;
    let sharing = match fields.get("sharing").as_deref() {
        None | Some("shared") => Sharing::Shared,
        Some("private") => Sharing::Private,
        Some("locked") => Sharing::Locked,
        Some(other) => {
            return Err(Error::new(format!("unsupported sharing value {other:?}"))
                .at(other)
                .hint("shared, private or locked"));
        }
    };
    let kind = MountKind::Cache {
        id: fields.get("id").unwrap_or_else(|| target.clone()),
        sharing,
        from: fields.get("from"),
        source: fields.source(),
        mode: fields.number("mode", 8, 0o755)?,
        uid: fields.number("uid", 10, 0)?,
        gid: fields.number("gid", 10, 0)?,
    };
    Ok(Mount { kind, target, read_only })
}

fn secret(fields: &Fields<'_>, target: Option<String>) -> Result<Mount> {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let id = fields
        .get("id")
        .or_else(|| fields.get("source"))
        .or_else(|| target.as_deref().map(base))
        .ok_or_else(|| Error::new("a secret mount needs an id").at(fields.text))?;
    let env = fields.get("env");
    let default = if env.is_some() { String::new() } else { format!("/run/secrets/{}", base(&id)) };
    let kind = MountKind::Secret {
        required: fields.on("required")?.unwrap_or(false),
        mode: fields.number("mode", 8, 0o400)?,
        uid: fields.number("uid", 10, 0)?,
        gid: fields.number("gid", 10, 0)?,
        env,
        id,
    };
    Ok(Mount { kind, target: target.unwrap_or(default), read_only: true })
}

/// `RUN --device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// `vendor.com/class=name`; `vendor.com/class` for the first, `vendor.com/class=*` for all of a kind.
    pub name: String,
    /// Whether it must be there.
    pub required: bool,
}

/// Reads `--device`: `NAME[,required]`, or `name=NAME,required=true`.
///
/// # Errors
/// Unknown fields; no name.
pub fn device(text: &str) -> Result<Device> {
    let mut device = Device { name: String::new(), required: false };
    for (at, field) in csv(text).into_iter().enumerate() {
        match field.split_once('=') {
            _ if field == "required" => device.required = true,
            Some(("required", value)) => {
                device.required = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    other => return Err(Error::new(format!("invalid value for required: {other}")).at(other)),
                }
            }
            Some(("name", name)) => device.name = name.to_owned(),
            _ if at == 0 => device.name = field,
            _ => {
                return Err(Error::new(format!("unexpected key '{field}' for --device"))
                    .at(field)
                    .hint("NAME[,required]"));
            }
        }
    }
    let kind = device.name.split('=').next().unwrap_or_default();
    if !kind.contains('/') {
        return Err(Error::new(format!("invalid device name '{}'", device.name))
            .at(text)
            .hint("vendor.com/class=name; classes of annotations are not supported"));
    }
    Ok(device)
}

/// Bytes with a unit: `64m`, `1GiB`.
fn size(text: &str) -> Result<u64> {
    let bad = || Error::new(format!("invalid size: '{text}'")).at(text);
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().map_err(|_| bad())?;
    let unit = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1_u64 << 40,
        _ => return Err(bad()),
    };
    number.checked_mul(unit).ok_or_else(bad)
}

/// Fields by commas; a field in double quotes may hold commas.
#[must_use]
pub fn csv(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().into_iter().for_each(|field| field.push(other)),
        }
    }
    fields
}

/// Whether a `STOPSIGNAL` can be one: a number, `SIGTERM`, `TERM`, `SIGRTMIN+3`.
#[must_use]
pub fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    const NAMES: [&str; 34] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU",
        "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "POLL", "PWR", "SYS", "CLD",
    ];
    let real_time = |prefix: &str, sign: char| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix(sign).is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 30))
        })
    };
    NAMES.contains(&name) || real_time("RTMIN", '+') || real_time("RTMAX", '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_ranges_with_protocols() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(ports("127.0.0.1:1:80/udp").unwrap(), ["80/udp"]);
        assert_eq!(ports("8000-8002").unwrap().len(), 3);
        for bad in ["", "0", "70000", "9-8", "80/x", "80:x"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal_or_symbolic() {
        let mode = |text: &str, old, directory| Mode::parse(text).unwrap().apply(old, directory);
        assert_eq!(mode("0755", 0o600, false), 0o755);
        assert_eq!(mode("u=rwX,go=rX", 0o600, false), 0o644);
        assert_eq!(mode("u=rwX,go=rX", 0o700, false), 0o755);
        assert_eq!(mode("a+X", 0o644, true), 0o755);
        assert_eq!(mode("g-w,o=", 0o666, false), 0o640);
        assert_eq!(mode("u+s", 0o755, false), 0o4755);
        assert_eq!(mode("g=u,o=", 0o755, false), 0o770);
        assert_eq!(mode("go+u-w", 0o700, false), 0o755);
        for bad in ["9", "77777", "u", "z+x", "u+q", "g=ux", "g=u+q", ""] {
            assert!(Mode::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_are_read_and_wrong_ones_named() {
        let read = |text: &str| device(text).map(|d| (d.name, d.required));
        assert_eq!(read("v.com/c=d").unwrap(), ("v.com/c=d".to_owned(), false));
        assert_eq!(read("v.com/c,required").unwrap(), ("v.com/c".to_owned(), true));
        assert_eq!(read("name=v.com/c=*,required=true").unwrap(), ("v.com/c=*".to_owned(), true));
        for bad in ["", "required", "class1", "v.com/c=d,optional", "v.com/c=d,required=perhaps"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_are_read_and_wrong_ones_named() {
        let cache = mount("type=cache,target=.cargo,sharing=locked", "/src").unwrap();
        assert_eq!(cache.target, "/src/.cargo");
        assert!(matches!(cache.kind, MountKind::Cache { sharing: Sharing::Locked, .. }) && !cache.read_only);
        let bind = mount("target=/x,from=b,src=/y", "/").unwrap();
        assert!(bind.read_only && matches!(bind.kind, MountKind::Bind { from: Some(_), .. }));
        let secret = mount("type=secret,id=a/b", "/").unwrap();
        assert_eq!(secret.target, "/run/secrets/b");
        assert_eq!(mount("type=secret,id=x,env=X", "/").unwrap().target, "");
        for bad in [
            "type=bind",
            "type=x,target=/a",
            "type=tmpfs,target=/a,id=3",
            "type=cache,target=/",
            "type=secret",
            "type=tmpfs,target=/a,size=1q",
        ] {
            assert!(mount(bad, "/").is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(absolute("/a", "../../b/./c/"), "/b/c");
        assert_eq!(absolute("", "x"), "/x");
        assert!(is_signal("SIGRTMIN+3") && is_signal("9") && is_signal("term") && !is_signal("SIGNOT"));
    }
}
