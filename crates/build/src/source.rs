//! PURE: addresses of sources and contexts: which are repositories, and what is asked of them.

/// A repository, and what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// As `git` takes it.
    pub repository: String,
    /// Branch, tag, `refs/…` or commit; empty: what the repository shows.
    pub reference: String,
    /// A path in it; empty: all.
    pub subdirectory: String,
    /// The beginning of the commit that it has to be; empty: any.
    pub checksum: String,
    /// `?NAME=` that is not known: an error for who fetches it.
    pub unknown: Option<String>,
}

impl GitSource {
    /// Whether an address is a repository's, by Docker's rules.
    #[must_use]
    pub fn is(address: &str) -> bool {
        let bare = address.split(['#', '?']).next().unwrap_or_default();
        let web = address.starts_with("http://") || address.starts_with("https://");
        (web && bare.ends_with(".git"))
            || ["git@", "git://", "ssh://", "github.com/"].iter().any(|start| address.starts_with(start))
    }

    /// `REPOSITORY[?ref=REF&subdir=DIRECTORY&checksum=COMMIT][#[REF][:DIRECTORY]]`; `branch` and `tag` are refs too.
    #[must_use]
    pub fn parse(address: &str) -> Self {
        let (repository, fragment) = address.split_once('#').unwrap_or((address, ""));
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
        let repository = match repository.strip_prefix("github.com/") {
            Some(_) => format!("https://{repository}"),
            None => repository.to_owned(),
        };
        let (bare, query) = match repository.split_once('?') {
            Some((bare, query)) => (bare.to_owned(), query.to_owned()),
            None => (repository, String::new()),
        };
        let mut source = Self {
            repository: bare,
            reference: reference.to_owned(),
            subdirectory: subdirectory.trim_matches('/').to_owned(),
            checksum: String::new(),
            unknown: None,
        };
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let value = decoded(value);
            match name {
                "ref" if source.reference.is_empty() => source.reference = value,
                "branch" if source.reference.is_empty() => source.reference = format!("refs/heads/{value}"),
                "tag" if source.reference.is_empty() => source.reference = format!("refs/tags/{value}"),
                "subdir" if source.subdirectory.is_empty() => {
                    source.subdirectory = value.trim_matches('/').to_owned();
                }
                "checksum" | "commit" => source.checksum = value,
                // Another one, or one that says again what was said.
                _ => source.unknown = Some(field.to_owned()),
            }
        }
        source
    }

    /// Whether the reference is a whole commit id, which never means anything else.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        matches!(self.reference.len(), 40 | 64) && self.reference.bytes().all(|b| b.is_ascii_hexdigit())
    }
}

/// Whether a context's address leads elsewhere than to this host's files.
#[must_use]
pub fn is_remote(address: &str) -> bool {
    GitSource::is(address) || address.contains("://")
}

/// What a file of this address is called: the last part of its path.
#[must_use]
pub fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['#', '?']).next().unwrap_or_default();
    let name = path.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/');
    let name = decoded(name.rsplit('/').next().unwrap_or_default());
    // As BuildKit calls what has no name, or none that a file can have.
    if name.is_empty() || name.contains(['/', '\0']) || matches!(name.as_str(), "." | "..") {
        return "__unnamed__".to_owned();
    }
    name
}

/// `%20` and the like; what is not UTF-8 then stays as it is written.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_repository_is_taken_apart() {
        let source = GitSource::parse("https://h/r.git#v1:a/b/");
        let expected = GitSource {
            repository: "https://h/r.git".to_owned(),
            reference: "v1".to_owned(),
            subdirectory: "a/b".to_owned(),
            checksum: String::new(),
            unknown: None,
        };
        assert_eq!(source, expected);
        assert_eq!(GitSource::parse("https://h/r.git?ref=v1&subdir=a%2Fb"), expected);
        let asked = GitSource::parse("https://h/r.git?branch=main&checksum=0a1b");
        assert_eq!((&*asked.reference, &*asked.checksum), ("refs/heads/main", "0a1b"));
        assert_eq!(GitSource::parse("https://h/r.git?tag=v1").reference, "refs/tags/v1");
        assert_eq!(GitSource::parse("https://h/r.git?depth=1").unknown.as_deref(), Some("depth=1"));
        assert_eq!(GitSource::parse("https://h/r.git?ref=a#b").unknown.as_deref(), Some("ref=a"));
        assert_eq!(GitSource::parse("github.com/a/b#:d").repository, "https://github.com/a/b");
        assert!(GitSource::parse(&format!("git://h/r#{}", "0a".repeat(20))).is_commit());
        assert!(!GitSource::parse("git://h/r#0a0a0a0").is_commit());
    }

    #[test]
    fn repositories_are_told_from_files() {
        for git in
            ["https://h/r.git", "http://h/r.git#b", "git://h/r", "git@h:r", "ssh://h/r", "github.com/a/b"]
        {
            assert!(GitSource::is(git), "{git}");
        }
        for other in ["https://h/r.tar.gz", "dir", "./github.com/a", "https://h/r"] {
            assert!(!GitSource::is(other), "{other}");
        }
    }

    #[test]
    fn file_is_called_by_the_last_part_of_its_path() {
        assert_eq!(file_name("http://h/a/b.txt?x=/y#z"), "b.txt");
        assert_eq!(file_name("http://h/a%20b"), "a b");
        for nameless in ["http://h", "http://h/", "http://h/..", "http://h/a/%2e%2e", "http://h/x%2fy"] {
            assert_eq!(file_name(nameless), "__unnamed__", "{nameless}");
        }
    }
}
