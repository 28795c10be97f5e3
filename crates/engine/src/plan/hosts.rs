//! PURE: the text of `/etc/hosts` inside a container.

use std::fmt::Write as _;
use std::net::IpAddr;

/// Docker's own host file: loopback names, the user's `--add-host`, then the container itself.
#[must_use]
pub fn text(extra: &[(String, String)], own: &[IpAddr], hostname: &str, domainname: Option<&str>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    for address in own {
        let _ = match domainname {
            Some(domain) => writeln!(text, "{address}\t{hostname}.{domain} {hostname}"),
            None => writeln!(text, "{address}\t{hostname}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_loopback_extra_and_self() {
        let own: IpAddr = "172.17.0.2".parse().unwrap();
        let text = text(&[("db".into(), "10.0.0.1".into())], &[own], "web", Some("lan"));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.0.0.1\tdb\n172.17.0.2\tweb.lan web\n"), "{text}");
    }
}
