//! Published ports as `ps` and `port` show them.

use std::net::IpAddr;

/// One port: published on the host, or only declared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// Inside.
    pub(crate) container: u16,
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    /// On the host.
    pub(crate) host: Option<(IpAddr, u16)>,
}

/// `0.0.0.0:5432`, `[::]:5432`.
pub(crate) fn address(ip: IpAddr, port: u16) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

/// The PORTS column: neighbours that go together are shown as ranges.
pub(crate) fn column(ports: &[Port]) -> String {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|p| (p.host.map(|(ip, _)| ip), p.protocol, p.container));
    ports.dedup();
    let mut shown: Vec<(Port, Port)> = Vec::new();
    for port in ports {
        match shown.last_mut() {
            Some((_, last)) if follows(last, &port) => *last = port,
            _ => shown.push((port.clone(), port)),
        }
    }
    // Published ones first, in Docker's order of addresses; declared ones last.
    shown.sort_by_key(|(first, _)| (first.host.is_none(), first.container, first.protocol, first.host));
    shown.iter().map(|(first, last)| range(first, last)).collect::<Vec<_>>().join(", ")
}

fn follows(last: &Port, next: &Port) -> bool {
    let host = match (last.host, next.host) {
        (Some((ip, port)), Some((next_ip, next_port))) => {
            ip == next_ip && port.checked_add(1) == Some(next_port)
        }
        (None, None) => true,
        _ => false,
    };
    host && last.protocol == next.protocol && last.container.checked_add(1) == Some(next.container)
}

fn range(first: &Port, last: &Port) -> String {
    let span = |from: u16, to: u16| if from == to { from.to_string() } else { format!("{from}-{to}") };
    let inside = format!("{}/{}", span(first.container, last.container), first.protocol);
    match (first.host, last.host) {
        (Some((ip, from)), Some((_, to))) => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            format!("{ip}:{}->{inside}", span(from, to))
        }
        _ => inside,
    }
}

#[cfg(test)]
mod tests {
    use super::{Port, column};

    fn port(host: Option<(&str, u16)>, container: u16, protocol: &'static str) -> Port {
        Port { container, protocol, host: host.map(|(ip, port)| (ip.parse().unwrap(), port)) }
    }

    #[test]
    fn column_joins_neighbours() {
        let ports = [
            port(Some(("::", 5432)), 5432, "tcp"),
            port(Some(("0.0.0.0", 5432)), 5432, "tcp"),
            port(None, 9000, "tcp"),
            port(Some(("127.0.0.1", 8000)), 80, "tcp"),
            port(Some(("127.0.0.1", 8001)), 81, "tcp"),
            port(Some(("127.0.0.1", 8005)), 82, "tcp"),
            port(Some(("0.0.0.0", 53)), 53, "udp"),
        ];
        assert_eq!(
            column(&ports),
            "0.0.0.0:53->53/udp, 127.0.0.1:8000-8001->80-81/tcp, 127.0.0.1:8005->82/tcp, 0.0.0.0:5432->5432/tcp, [::]:5432->5432/tcp, 9000/tcp"
        );
    }

    #[test]
    fn column_joins_declared_ranges() {
        let ports = [port(None, 2, "tcp"), port(None, 1, "tcp"), port(None, 3, "udp")];
        assert_eq!(column(&ports), "1-2/tcp, 3/udp");
    }
}
