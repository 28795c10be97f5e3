//! Platforms: `linux/arm64/v8`, their normal form, and which of an index's entries fits best.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an image was built for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `linux`, …
    #[serde(default)]
    pub os: String,
    /// `v7` and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows only in practice.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Likewise.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform `{0}`: expected os/architecture[/variant], such as linux/arm64/v8")]
pub struct PlatformError(pub String);

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        Self { os: "linux".into(), architecture: std::env::consts::ARCH.into(), ..Self::default() }
            .normalised()
    }

    /// Parses `os/arch[/variant]`, `os` or `arch`, as `--platform` takes it.
    ///
    /// # Errors
    /// [`PlatformError`] naming the offender.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let word = |t: &str| {
            !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() > 3 || !parts.iter().all(|part| word(part)) {
            return Err(PlatformError(text.to_owned()));
        }
        let host = Self::host();
        let made = |os: &str, architecture: &str, variant: Option<&str>| Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_ascii_lowercase(),
            variant: variant.map(str::to_ascii_lowercase),
            ..Self::default()
        };
        let platform = match parts.as_slice() {
            [os] if is_os(os) => made(os, &host.architecture, host.variant.as_deref()),
            [architecture] => {
                let known = made("linux", architecture, None).normalised();
                if !is_architecture(&known.architecture) {
                    return Err(PlatformError(text.to_owned()));
                }
                known
            }
            [os, architecture] => made(os, architecture, None),
            [os, architecture, variant] => made(os, architecture, Some(variant)),
            _ => return Err(PlatformError(text.to_owned())),
        };
        Ok(platform.normalised())
    }

    /// The names Go and Docker use (`x86_64` → `amd64`), implied variants dropped.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        let (architecture, variant) = match (self.architecture.as_str(), self.variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", Some("8" | "v8")) => ("arm64", None),
            ("aarch64", variant) => ("arm64", variant),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
            ("armhf", _) | ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("powerpc64le", variant) => ("ppc64le", variant),
            (architecture, variant) => (architecture, variant),
        };
        let (architecture, variant) = (architecture.to_owned(), variant.map(str::to_owned));
        self.architecture = architecture;
        self.variant = variant.filter(|v| !v.is_empty());
        if self.os == "macos" {
            self.os = "darwin".into();
        }
        self
    }

    /// How well `offered` serves a wish for `self`: 0 is exact, larger is worse, `None` is not at all.
    #[must_use]
    pub fn distance(&self, offered: &Self) -> Option<u32> {
        let (wanted, offered) = (self.clone().normalised(), offered.clone().normalised());
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        // A newer variant runs what was built for an older one, never the other way round.
        let level = |p: &Self| -> Option<u32> {
            match &p.variant {
                Some(variant) => variant.strip_prefix('v')?.split('.').next()?.parse().ok(),
                None => Some(if p.architecture == "arm64" { 8 } else { 1 }),
            }
        };
        if wanted.variant == offered.variant {
            return Some(0);
        }
        level(&wanted)?.checked_sub(level(&offered)?)
    }

    /// The index of the best entry among `offered`; the first of equals wins.
    #[must_use]
    pub fn choose<'a>(&self, offered: impl IntoIterator<Item = &'a Self>) -> Option<usize> {
        offered
            .into_iter()
            .enumerate()
            .filter_map(|(at, platform)| Some((self.distance(platform)?, at)))
            .min()
            .map(|(_, at)| at)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

fn is_os(text: &str) -> bool {
    matches!(
        text,
        "linux" | "windows" | "darwin" | "macos" | "freebsd" | "netbsd" | "openbsd" | "solaris" | "wasi"
    )
}

fn is_architecture(text: &str) -> bool {
    matches!(
        text,
        "amd64"
            | "arm64"
            | "arm"
            | "386"
            | "ppc64le"
            | "ppc64"
            | "s390x"
            | "riscv64"
            | "loong64"
            | "mips64le"
            | "mips64"
            | "mipsle"
            | "mips"
            | "wasm"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Platform {
        Platform::parse(text).unwrap()
    }

    #[test]
    fn parse_normalises() {
        assert_eq!(p("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(p("aarch64").to_string(), "linux/arm64");
        assert_eq!(p("linux/arm64/v8").to_string(), "linux/arm64");
        assert_eq!(p("armhf").to_string(), "linux/arm/v7");
        assert_eq!(p("linux").architecture, Platform::host().architecture);
        for bad in ["", "/", "linux/", "a/b/c/d", "bogus", "linux/a b"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn choose_takes_the_nearest_older_variant() {
        let offered = [p("linux/arm/v5"), p("linux/arm/v7"), p("linux/arm64"), p("linux/amd64")];
        assert_eq!(p("linux/arm/v7").choose(&offered), Some(1));
        assert_eq!(p("linux/arm/v6").choose(&offered), Some(0));
        assert_eq!(p("linux/arm64/v8").choose(&offered), Some(2));
        assert_eq!(p("linux/s390x").choose(&offered), None);
        assert_eq!(p("linux/amd64").choose(&[p("linux/amd64/v3")]), None);
    }
}
