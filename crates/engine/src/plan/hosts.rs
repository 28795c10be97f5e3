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
        text.push_str(&line(*address, hostname, domainname));
    }
    text
}

fn line(address: IpAddr, hostname: &str, domainname: Option<&str>) -> String {
    match domainname {
        Some(domain) => format!("{address}\t{hostname}.{domain} {hostname}\n"),
        None => format!("{address}\t{hostname}\n"),
    }
}

/// A container's host file when its addresses have changed; what else is in it is not ours.
#[must_use]
pub fn changed(
    text: &str,
    (gone, new): (&[IpAddr], &[IpAddr]),
    hostname: &str,
    domainname: Option<&str>,
) -> String {
    let lines = |list: &[IpAddr]| -> Vec<String> {
        list.iter().map(|address| line(*address, hostname, domainname)).collect()
    };
    let (gone, new) = (lines(gone), lines(new));
    let stay = text.split_inclusive('\n').filter(|line| !gone.iter().any(|gone| gone == line));
    let mut text: String = stay.collect();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let mut added = String::new();
    for line in new.iter().filter(|line| !text.split_inclusive('\n').any(|other| other == *line)) {
        added.push_str(line);
    }
    text + &added
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

    #[test]
    fn changed_takes_and_adds_its_own_lines_only() {
        let (old, new): (IpAddr, IpAddr) = ("172.17.0.2".parse().unwrap(), "10.0.0.5".parse().unwrap());
        let text = "172.17.0.2\tweb\n172.17.0.2\tmine\nlast";
        let now = changed(text, (&[old], &[new]), "web", None);
        assert_eq!(now, "172.17.0.2\tmine\nlast\n10.0.0.5\tweb\n");
        assert_eq!(changed(&now, (&[], &[new]), "web", None), now);
    }
}
