//! PURE: what is in an image, as its package databases say: a document in SPDX's form.
//!
//! Read are dpkg's (`/var/lib/dpkg/status`, and `status.d/` of images without dpkg) and apk's
//! (`/lib/apk/db/installed`). Not rpm's, which is a database of its own form, and not what a language's own
//! package manager or a COPY brought; the document says so.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Where databases are: files, and directories of such files.
pub const PLACES: [(&str, System); 4] = [
    ("/var/lib/dpkg/status", System::Dpkg),
    ("/var/lib/dpkg/status.d", System::Dpkg),
    ("/lib/apk/db/installed", System::Apk),
    ("/usr/lib/apk/db/installed", System::Apk),
];

/// Whose database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Debian's and its relatives'.
    Dpkg,
    /// Alpine's and its relatives'.
    Apk,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it was built for.
    pub architecture: String,
    /// `deb` or `apk`.
    pub kind: &'static str,
    /// Who keeps it.
    pub maintainer: Option<String>,
    /// As the database says.
    pub licence: Option<String>,
}

/// The packages of a database. What is not understood is passed over.
#[must_use]
pub fn packages(system: System, text: &str) -> Vec<Package> {
    text.split("\n\n").filter_map(|paragraph| package(system, paragraph)).collect()
}

fn package(system: System, paragraph: &str) -> Option<Package> {
    let separator = match system {
        System::Dpkg => ": ",
        System::Apk => ":",
    };
    // Lines that go on begin with a space: no field's name does.
    let fields: BTreeMap<&str, &str> = paragraph
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(separator))
        .collect();
    let get =
        |name: &str| fields.get(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match system {
        System::Dpkg => {
            // What was removed stays in the list with its configuration.
            if get("Status").is_some_and(|status| !status.ends_with(" installed")) {
                return None;
            }
            Some(Package {
                name: get("Package")?,
                version: get("Version")?,
                architecture: get("Architecture").unwrap_or_default(),
                kind: "deb",
                maintainer: get("Maintainer"),
                licence: None,
            })
        }
        System::Apk => Some(Package {
            name: get("P")?,
            version: get("V")?,
            architecture: get("A").unwrap_or_default(),
            kind: "apk",
            maintainer: get("m"),
            licence: get("L"),
        }),
    }
}

/// What `/etc/os-release` says of a distribution: its id and version.
#[must_use]
pub fn distribution(os_release: &str) -> (String, String) {
    let field = |name: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    (field("ID"), field("VERSION_ID"))
}

/// The document. `name` and `digest` are the image's.
#[must_use]
pub fn document(
    (name, digest): (&str, &cata_spec::Digest),
    created: &str,
    (distribution, release): (&str, &str),
    packages: &[Package],
) -> Value {
    let mut packages: Vec<&Package> = packages.iter().collect();
    packages.sort();
    packages.dedup();
    let id = |at: usize| format!("SPDXRef-Package-{}", at + 1);
    let listed: Vec<Value> = packages
        .iter()
        .enumerate()
        .map(|(at, package)| {
            let by =
                package.maintainer.as_ref().map_or("NOASSERTION".to_owned(), |by| format!("Person: {by}"));
            json!({
                "SPDXID": id(at),
                "name": package.name,
                "versionInfo": package.version,
                "originator": by,
                "downloadLocation": "NOASSERTION",
                "filesAnalyzed": false,
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": "NOASSERTION",
                "licenseComments": package.licence.as_deref().unwrap_or_default(),
                "copyrightText": "NOASSERTION",
                "externalRefs": [{
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": package_url(package, distribution, release),
                }],
            })
        })
        .collect();
    let relationships: Vec<Value> = (0..packages.len())
        .map(|at| {
            json!({
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": id(at),
            })
        })
        .collect();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:catamaran:sbom:{}", digest.hex()),
        "creationInfo": {
            "created": created,
            "creators": [concat!("Tool: catamaran-", env!("CARGO_PKG_VERSION"))],
            "comment": "Packages that dpkg's and apk's databases list. Not: rpm's, those of languages' own \
                        package managers, and files that belong to no package.",
        },
        "packages": listed,
        "relationships": relationships,
    })
}

fn package_url(package: &Package, distribution: &str, release: &str) -> String {
    let namespace = if distribution.is_empty() {
        if package.kind == "deb" { "debian" } else { "alpine" }
    } else {
        distribution
    };
    let release = if release.is_empty() { String::new() } else { format!("&distro={namespace}-{release}") };
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    format!(
        "pkg:{}/{namespace}/{}@{}?arch={}{release}",
        package.kind,
        escape(&package.name),
        escape(&package.version),
        escape(&package.architecture)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_read() {
        let dpkg = "Package: libc6\nStatus: install ok installed\nMaintainer: GNU <a@b>\nArchitecture: amd64\n\
            Version: 2.36-9+deb12u1\nDescription: x\n Package: not\n\nPackage: gone\nStatus: deinstall ok config-files\n\
            Version: 1\n\nnonsense\n\nPackage: bare\nVersion: 1:2\nArchitecture: all\n";
        let found = packages(System::Dpkg, dpkg);
        let names: Vec<&str> = found.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["libc6", "bare"]);
        assert_eq!(
            package_url(&found[0], "debian", "12"),
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u1?arch=amd64&distro=debian-12"
        );
        let apk = packages(System::Apk, "C:Q1=\nP:musl\nV:1.2-r1\nA:x86_64\nL:MIT\nF:lib\n\nP:only\n");
        assert_eq!((apk.len(), apk[0].licence.as_deref()), (1, Some("MIT")));
        assert_eq!(distribution("ID=debian\nVERSION_ID=\"12\"\n"), ("debian".into(), "12".into()));
        let digest = cata_spec::Digest::from_bytes([1; 32]);
        let made = document(("x", &digest), "1970-01-01T00:00:00Z", ("debian", "12"), &found);
        assert_eq!(made["packages"][0]["name"], "bare");
        assert_eq!(made["relationships"].as_array().unwrap().len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_harm(text in r"[A-Za-z: \n]{0,200}") {
            for system in [System::Dpkg, System::Apk] {
                let _ = packages(system, &text);
            }
            let _ = distribution(&text);
        }
    }
}
