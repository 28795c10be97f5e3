//! PURE, but for [`host_servers`]: `/etc/resolv.conf` of the host read, `/etc/resolv.conf` and `/etc/hosts`
//! of a container written.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::dns::NAME_SERVER;

/// Asked when the host names nobody that a container could reach: Google's, as Docker does.
const FALLBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];

/// What a `resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResolvConf {
    /// `nameserver`.
    pub servers: Vec<IpAddr>,
    /// `search` (or `domain`): the last one counts.
    pub search: Vec<String>,
    /// `options`.
    pub options: Vec<String>,
}

/// What a user asked for with `--dns`, `--dns-search`, `--dns-option`; empty lists: what the host has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wishes {
    /// `--dns`.
    pub servers: Vec<IpAddr>,
    /// `--dns-search`; `.` means none.
    pub search: Vec<String>,
    /// `--dns-option`.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads one; lines that are not understood are passed over, as resolvers do.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A scope (`fe80::1%eth0`) means nothing in another namespace.
                    conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()));
                }
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        conf
    }

    /// A container's on a user network: the name service inside its own namespace.
    #[must_use]
    pub fn for_user_network(&self, wishes: &Wishes) -> String {
        let mut options = self.options_for(wishes);
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".to_owned());
        }
        render(&[IpAddr::V4(NAME_SERVER)], &self.search_for(wishes), &options)
    }

    /// A container's on the default bridge: the host's servers, those on its loopback left out.
    #[must_use]
    pub fn for_default_bridge(&self, wishes: &Wishes) -> String {
        let servers = if wishes.servers.is_empty() { self.reachable() } else { wishes.servers.clone() };
        render(&servers, &self.search_for(wishes), &self.options_for(wishes))
    }

    /// A container's in the host's own network: the host's, loopback and all.
    #[must_use]
    pub fn for_host_network(&self, wishes: &Wishes) -> String {
        let servers = if wishes.servers.is_empty() { &self.servers } else { &wishes.servers };
        render(servers, &self.search_for(wishes), &self.options_for(wishes))
    }

    fn reachable(&self) -> Vec<IpAddr> {
        let servers: Vec<IpAddr> = self.servers.iter().copied().filter(|ip| !ip.is_loopback()).collect();
        if servers.is_empty() { FALLBACK.to_vec() } else { servers }
    }

    fn search_for(&self, wishes: &Wishes) -> Vec<String> {
        let search = if wishes.search.is_empty() { &self.search } else { &wishes.search };
        search.iter().filter(|domain| *domain != ".").cloned().collect()
    }

    fn options_for(&self, wishes: &Wishes) -> Vec<String> {
        if wishes.options.is_empty() { self.options.clone() } else { wishes.options.clone() }
    }
}

/// A container's `/etc/hosts`: itself, `extra` as (name, address), and on no user network its own name.
#[must_use]
pub fn hosts(own: &[(IpAddr, Vec<String>)], extra: &[(String, IpAddr)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    for (address, names) in own {
        let _ = writeln!(text, "{address}\t{}", names.join(" "));
    }
    text
}

/// Whom the host asks. Its loopback is reachable: questions are passed on from the host's namespace.
#[must_use]
pub fn host_servers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut servers = ResolvConf::parse(&text).servers;
    if servers.is_empty() {
        servers = FALLBACK.to_vec();
    }
    servers.into_iter().map(|server| SocketAddr::new(server, 53)).collect()
}

fn render(servers: &[IpAddr], search: &[String], options: &[String]) -> String {
    let mut text = String::new();
    for server in servers {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    for (key, words) in [("search", search), ("options", options)] {
        if !words.is_empty() {
            let _ = writeln!(text, "{key} {}", words.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.1 ; office\nnameserver ::1\n\
                        nameserver fe80::1%eth0\nsearch corp.example lab\noptions edns0 trust-ad\nbogus\n";

    #[test]
    fn for_default_bridge_leaves_loopback_out() {
        let conf = ResolvConf::parse(HOST);
        assert_eq!(
            conf.for_default_bridge(&Wishes::default()),
            "nameserver 10.0.0.1\nsearch corp.example lab\noptions edns0 trust-ad\n"
        );
        let only_loopback = ResolvConf::parse("nameserver 127.0.0.53\n");
        assert_eq!(
            only_loopback.for_default_bridge(&Wishes::default()),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
    }

    #[test]
    fn for_user_network_is_our_own_service() {
        let wishes = Wishes { search: vec![".".to_owned()], ..Wishes::default() };
        let text = ResolvConf::parse(HOST).for_user_network(&wishes);
        assert_eq!(text, "nameserver 127.0.0.11\noptions edns0 trust-ad ndots:0\n");
    }

    #[test]
    fn hosts_names_itself_last() {
        let own = [("172.17.0.2".parse().unwrap(), vec!["web".to_owned(), "abc".to_owned()])];
        let text = hosts(&own, &[("db".to_owned(), "10.0.0.9".parse().unwrap())]);
        assert!(text.ends_with("10.0.0.9\tdb\n172.17.0.2\tweb abc\n"), "{text}");
    }
}
