//! What may differ, and why.

use super::difference::Difference;

/// One kind of difference.
struct Allowed {
    /// Empty: all builds.
    build: &'static str,
    /// Empty: both peers.
    peer: &'static str,
    aspect: &'static str,
    /// A path or field; `*` at its beginning or end stands for anything.
    place: &'static str,
    reason: &'static str,
}

/// In all builds.
const fn allow(
    peer: &'static str,
    aspect: &'static str,
    place: &'static str,
    reason: &'static str,
) -> Allowed {
    within("", peer, aspect, place, reason)
}

const fn within(
    build: &'static str,
    peer: &'static str,
    aspect: &'static str,
    place: &'static str,
    reason: &'static str,
) -> Allowed {
    Allowed { build, peer, aspect, place, reason }
}

const STUB: &str = "docker leaves the directories that it mounts on, buildah those above";
const SNAKEOIL: &str = "ssl-cert makes a key, its certificate, and a link that is named by it";
const EMPTY: &str = "what changes nothing has no layer here";
const TIME: &str =
    "a directory has the time of that which it is a copy of, so that the same files give the same layer";
const WORKDIR: &str = "buildah makes working directories when a container starts, BuildKit when it builds";
const CHMOD: &str = "as in BuildKit of today: directories on the way have the mode of --chmod too";

const TABLE: &[Allowed] = &[
    allow("docker", "config", "ArgsEscaped", "of Windows alone; in the OCI's specification no more"),
    allow("docker", "step", "*", EMPTY),
    allow("docker", "history", "ONBUILD*", "BuildKit's history is silent on triggers"),
    allow("buildah", "step", "RUN*", EMPTY),
    allow("buildah", "step", "WORKDIR*", WORKDIR),
    allow("buildah", "config", "Hostname", "the name of buildah's working container"),
    allow("buildah", "config", "Labels io.buildah.version", "buildah's signature"),
    allow("buildah", "missing", "etc/hostname", "buildah leaves the file that it mounts on"),
    allow("buildah", "time", "run", "buildah puts a file there, and takes it away"),
    allow("", "time", "etc", "docker and buildah put files there to mount on, and take them away"),
    within("scratch", "docker", "xattr", "from-archive/*", "docker's ADD drops all but capabilities"),
    within(
        "scratch",
        "docker",
        "missing",
        "pipe",
        "docker 20.10 passes over pipes; BuildKit of today does not",
    ),
    within("scratch", "", "mode", "chosen", CHMOD),
    within("scratch", "", "mode", "sub", CHMOD),
    within("scratch", "", "time", "owned*", TIME),
    within("scratch", "", "time", "into", TIME),
    within("scratch", "", "time", "private", TIME),
    within("scratch", "", "time", "sub", TIME),
    within("scratch", "", "time", "tree*", TIME),
    within(
        "scratch",
        "buildah",
        "time",
        "from-archive/gzip",
        "the directory that an archive is unpacked into",
    ),
    within("scratch", "buildah", "missing", "own*", WORKDIR),
    within("scratch", "buildah", "missing", "work/place/deeper", WORKDIR),
    within("removals", "", "time", "shared/d", TIME),
    within("removals", "docker", "time", "d", TIME),
    within("removals", "docker", "mode", "shared/d", "what COPY makes is root's, as in buildah"),
    within("removals", "docker", "owner", "shared/d", "what COPY makes is root's, as in buildah"),
    within("package", "", "time", "etc/greeter.d", TIME),
    // Packages.
    allow("docker", "missing", "machine", STUB),
    allow("", "missing", "root/.cache*", STUB),
    allow("", "time", "root", STUB),
    allow("buildah", "missing", "etc/hosts", "buildah leaves the file that it mounts on"),
    allow("buildah", "missing", "etc/resolv.conf", "buildah leaves the file that it mounts on"),
    allow("buildah", "missing", "var/cache/apt", "buildah takes away the directories that it mounts on"),
    allow("buildah", "missing", "var/lib/apt/lists*", "buildah takes away the directories that it mounts on"),
    allow("buildah", "time", "var/cache", "buildah takes away the directories that it mounts on"),
    allow(
        "buildah",
        "config",
        "WorkingDir",
        "of an image that names none: / in BuildKit, nothing in buildah",
    ),
    allow("buildah", "history", "ENV*", "BuildKit writes the values, buildah what stands in the Dockerfile"),
    within("postgres", "", "missing", "etc/ssl/certs/*", SNAKEOIL),
    within("postgres", "", "content", "etc/ssl/*", SNAKEOIL),
    within("postgres", "", "content", "var/cache/debconf/*", SNAKEOIL),
    allow("", "content", "var/cache/ldconfig/aux-cache", "ldconfig keeps inode numbers and times"),
    allow("", "content", "*.pyc", "Python keeps the time of the source"),
];

/// Why a difference is expected, if it is.
pub(super) fn reason(build: &str, peer: &str, found: &Difference) -> Option<&'static str> {
    let fits = |allowed: &&Allowed| {
        let either = |pattern: &str, text: &str| pattern.is_empty() || pattern == text;
        let place = match (allowed.place.strip_prefix('*'), allowed.place.strip_suffix('*')) {
            (Some(end), _) => found.place.ends_with(end),
            (None, Some(start)) => found.place.starts_with(start),
            (None, None) => found.place == allowed.place,
        };
        either(allowed.build, build) && either(allowed.peer, peer) && allowed.aspect == found.aspect && place
    };
    TABLE.iter().find(fits).map(|allowed| allowed.reason)
}
