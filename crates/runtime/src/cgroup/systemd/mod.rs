//! The systemd driver: a container's cgroup is a scope of systemd's, made by its manager.
//!
//! [`Unit::plan`] decides (pure); [`Unit::start`], [`Unit::stop`] and [`Unit::set`] talk to the manager over
//! D-Bus, in one connection each. A scope is made of processes: so it is made around the container's first one,
//! which waits for that; where it then is the kernel tells ([`Layout::of`](super::Layout::of)), and the limits
//! are written there by [`Cgroup::adopt`](super::Cgroup::adopt) besides, so that they are what was asked for and
//! not what systemd rounds them to.

mod bus;
mod property;
mod wire;

use std::collections::HashMap;

use cata_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use self::bus::{Bus, Refusal};
use super::{CgroupError, Layout};

/// Which systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// The machine's.
    System,
    /// That of the user's session.
    User,
}

/// A scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Whose it is.
    pub manager: Manager,
    /// `podman-1.scope`.
    pub name: String,
    /// The slice it lies in.
    pub slice: String,
    /// What it is made with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<Property>,
}

/// A property of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// As systemd calls it.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// A value of one of the kinds that properties are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Value {
    Bool(bool),
    Number(u64),
    Signed(i32),
    Text(String),
    Texts(Vec<String>),
    Bytes(Vec<u8>),
    Numbers(Vec<u32>),
    Pairs(Vec<(String, String)>),
}

/// Annotations with this beginning are properties.
const ANNOTATION: &str = "org.systemd.property.";

/// Whose processes are in the scope, and where it is, is no annotation's to say.
const OWN: [&str; 5] = ["PIDs", "PIDFDs", "Slice", "Delegate", "Controller"];

/// systemd's names of what it answers.
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// What a unit is made of, besides its limits.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// `slice:prefix:name`, parts of which may be empty; empty: the runtime decides.
    pub path: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// What runtimes put before a name when nobody says what.
    pub prefix: &'a str,
    /// Properties among them.
    pub annotations: Option<&'a HashMap<String, String>>,
}

impl Unit {
    /// Decides a container's scope.
    ///
    /// # Errors
    /// [`CgroupError::Path`] for a path of another form, and whatever cannot be a property.
    pub fn plan(
        wish: Wish<'_>,
        resources: Option<&LinuxResources>,
        manager: Manager,
        layout: &Layout,
    ) -> Result<Self, CgroupError> {
        let (slice, name) = names(wish, manager)?;
        let text = |name: &str, value: &str| Property {
            name: name.to_owned(),
            value: Value::Text(value.to_owned()),
        };
        let yes = |name: &str| Property { name: name.to_owned(), value: Value::Bool(true) };
        let mut properties = vec![
            text("Description", &format!("container {}", wish.id)),
            text("Slice", &slice),
            // Whoever has died in it is forgotten with it.
            text("CollectMode", "inactive-or-failed"),
            yes("Delegate"),
            Property { name: "DefaultDependencies".to_owned(), value: Value::Bool(false) },
        ];
        let io = if layout.is_v2() { "IOAccounting" } else { "BlockIOAccounting" };
        properties.extend(["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"].map(yes));
        if let Some(resources) = resources {
            properties.extend(property::of(resources, layout.is_v2())?);
        }
        let mut more: Vec<_> = wish.annotations.into_iter().flatten().collect();
        more.sort_unstable();
        for (key, value) in more {
            let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
            let property = property::annotated(name, value)?;
            if OWN.contains(&property.name.as_str()) {
                return Err(CgroupError::OwnProperty(property.name));
            }
            properties.retain(|other| other.name != property.name);
            properties.push(property);
        }
        Ok(Self { manager, name, slice, properties })
    }

    /// What is kept of it: who is asked, and for what.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self { properties: Vec::new(), ..self.clone() }
    }

    /// Makes it around a process, and returns when that is there.
    ///
    /// # Errors
    /// [`CgroupError::Manager`].
    pub fn start(&self, pid: u32) -> Result<(), CgroupError> {
        let mut bus = Bus::connect(self.manager)?;
        let begun = match self.begin(&mut bus, pid) {
            // What remains of a failed one: it is forgotten, once.
            Err(Refusal::Told(name, _)) if name == EXISTS => {
                let _ = bus.call("ResetFailedUnit", "s", bus::texts(&[&self.name]));
                self.begin(&mut bus, pid)?
            }
            begun => begun?,
        };
        bus.finish(&begun, &self.name)
    }

    fn begin(&self, bus: &mut Bus, pid: u32) -> Result<wire::Message, Refusal> {
        let mut body = bus::texts(&[&self.name, "replace"]);
        let mut all = self.properties.clone();
        all.push(Property { name: "PIDs".to_owned(), value: Value::Numbers(vec![pid]) });
        bus::properties(&mut body, &all);
        // No auxiliary units.
        body.list(8, |_| {});
        bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
    }

    /// Ends it; one that is not there any more is as it should be.
    ///
    /// # Errors
    /// [`CgroupError::Manager`].
    pub fn stop(&self) -> Result<(), CgroupError> {
        let mut bus = Bus::connect(self.manager)?;
        match bus.call("StopUnit", "ss", bus::texts(&[&self.name, "replace"])) {
            Ok(begun) => bus.finish(&begun, &self.name)?,
            Err(Refusal::Told(name, _)) if name == NO_SUCH => {}
            Err(refusal) => return Err(refusal.into()),
        }
        match bus.call("ResetFailedUnit", "s", bus::texts(&[&self.name])) {
            Err(Refusal::Told(name, _)) if name == NO_SUCH => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    /// Changes its limits, as long as the machine runs.
    ///
    /// # Errors
    /// [`CgroupError::Manager`].
    pub fn set(&self, resources: &LinuxResources, layout: &Layout) -> Result<(), CgroupError> {
        let mut properties = property::of(resources, layout.is_v2())?;
        // Devices stay as they are.
        properties.retain(|property| !property.name.starts_with("Device"));
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = bus::texts(&[&self.name]);
        // For now, not for ever.
        body.number(1);
        bus::properties(&mut body, &properties);
        Bus::connect(self.manager)?.call("SetUnitProperties", "sba(sv)", body)?;
        Ok(())
    }
}

/// Slice and unit of `slice:prefix:name`.
fn names(wish: Wish<'_>, manager: Manager) -> Result<(String, String), CgroupError> {
    let wrong = |why| CgroupError::Path { path: wish.path.to_owned(), why };
    let parts: Vec<&str> = match wish.path {
        "" => vec!["", wish.prefix, wish.id],
        path => path.split(':').collect(),
    };
    let [slice, prefix, name] = parts[..] else {
        return Err(wrong("is not of the form slice:prefix:name, which the systemd driver needs"));
    };
    let slice = match (slice, manager) {
        ("", Manager::System) => "system.slice",
        ("", Manager::User) => "user.slice",
        (slice, _) => slice,
    };
    let plain = |text: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '\\' | '@'))
    };
    let stem = slice.strip_suffix(".slice").filter(|stem| !stem.is_empty() && plain(stem));
    let stem = stem.ok_or_else(|| wrong("does not begin with the name of a slice"))?;
    if stem != "-" && (stem.starts_with('-') || stem.ends_with('-') || stem.contains("--")) {
        return Err(wrong("names a slice with a part that is empty"));
    }
    if name.is_empty() || !plain(name) || !plain(prefix) {
        return Err(wrong("has no name that a unit could have"));
    }
    let unit = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    if unit.len() > 240 {
        return Err(wrong("makes a name that is too long for a unit"));
    }
    Ok((slice.to_owned(), format!("{unit}.scope")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(path: &str) -> Wish<'_> {
        Wish { path, id: "c1", prefix: "cata", annotations: None }
    }

    #[test]
    fn paths_become_slices_and_scopes() {
        let known = [
            ("", "system.slice", "cata-c1.scope"),
            ("machine.slice:libpod:ab", "machine.slice", "libpod-ab.scope"),
            ("::x", "system.slice", "x.scope"),
            ("kube-pod1.slice:crio:x", "kube-pod1.slice", "crio-x.scope"),
            ("-.slice:a:b", "-.slice", "a-b.scope"),
        ];
        for (path, slice, name) in known {
            let expected = (slice.to_owned(), name.to_owned());
            assert_eq!(names(wish(path), Manager::System).unwrap(), expected, "{path}");
        }
        assert_eq!(names(wish(""), Manager::User).unwrap().0, "user.slice");
        for path in ["/a/b", "a:b", "a.slice:b:", "a:b:c", "a--b.slice:b:c", "a/b.slice:b:c", "a.slice:b:c/d"]
        {
            assert!(names(wish(path), Manager::System).is_err(), "{path}");
        }
    }

    #[test]
    fn annotations_are_properties_and_win() {
        let annotations = HashMap::from([
            ("org.systemd.property.TimeoutStopUSec".to_owned(), "uint64 5".to_owned()),
            ("org.systemd.property.CollectMode".to_owned(), "'inactive'".to_owned()),
            ("other".to_owned(), "x".to_owned()),
        ]);
        let layout =
            Layout::parse("41 40 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw", "0::/", "6.1.0").unwrap();
        let wish = Wish { annotations: Some(&annotations), ..wish("") };
        let unit = Unit::plan(wish, None, Manager::System, &layout).unwrap();
        let of = |name: &str| unit.properties.iter().find(|p| p.name == name).map(|p| p.value.clone());
        assert_eq!(of("TimeoutStopUSec"), Some(Value::Number(5)));
        assert_eq!(of("CollectMode"), Some(Value::Text("inactive".to_owned())));
        assert_eq!(of("Delegate"), Some(Value::Bool(true)));
        assert_eq!(of("other"), None);
    }
}
