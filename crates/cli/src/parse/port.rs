//! `-p [[ip:][host]:]container[/protocol]`, with ranges on either side.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use cata_engine::request::{PortRequest, Transport};

use super::{ParseError, Parsed};

/// One `-p`; a range of ports gives one request a port.
pub(crate) fn parse(text: &str) -> Parsed<Vec<PortRequest>> {
    if text.contains('=') {
        return long_form(text);
    }
    let (addresses, transport) = match text.rsplit_once('/') {
        Some((addresses, protocol)) => (addresses, protocol_of(protocol)?),
        None => (text, Transport::Tcp),
    };
    let (ip, host, container) = split(text, addresses)?;
    if container.is_empty() {
        return Err(ParseError::new(format!("no port specified: {text}<empty>")));
    }
    requests(ip, host, container, transport)
}

/// One `--expose`: a port or range with a protocol, as `5432/tcp` each.
pub(crate) fn exposed(text: &str) -> Parsed<Vec<String>> {
    if text.contains(':') {
        return Err(ParseError::new(format!("invalid port format for --expose: {text}")));
    }
    let (ports, transport) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol_of(protocol)?),
        None => (text, Transport::Tcp),
    };
    let range =
        range(ports).ok_or_else(|| ParseError::new(format!("invalid range format for --expose: {text}")))?;
    let suffix = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    Ok(range.map(|port| format!("{port}/{suffix}")).collect())
}

/// `published=8080,target=80,protocol=udp`.
fn long_form(text: &str) -> Parsed<Vec<PortRequest>> {
    let (mut host, mut container, mut transport) = ("", "", Transport::Tcp);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => host = value,
            Some(("target", value)) => container = value,
            Some(("protocol", value)) => transport = protocol_of(value)?,
            Some(("mode", "ingress" | "host")) => {}
            _ => return Err(ParseError::new(format!("invalid field format: {field}"))),
        }
    }
    if container.is_empty() {
        return Err(ParseError::new(format!("no target port in '{text}'")));
    }
    requests(None, host, container, transport)
}

/// Address, host ports and container ports of the part before the protocol.
fn split<'a>(text: &str, addresses: &'a str) -> Parsed<(Option<IpAddr>, &'a str, &'a str)> {
    if let Some(bracketed) = addresses.strip_prefix('[') {
        let bad_ip = || ParseError::new(format!("invalid IP address: {text}"));
        let (ip, ports) = bracketed.split_once("]:").ok_or_else(bad_ip)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad_ip())?;
        let (host, container) = ports.split_once(':').unwrap_or(("", ports));
        return Ok((Some(ip), host, container));
    }
    let parts: Vec<&str> = addresses.split(':').collect();
    match parts.as_slice() {
        [container] => Ok((None, "", container)),
        [host, container] => Ok((None, host, container)),
        ["", host, container] => Ok((None, host, container)),
        [ip, host, container] => {
            let ip = ip.parse().map_err(|_| ParseError::new(format!("invalid IP address: {ip}")))?;
            Ok((Some(ip), host, container))
        }
        // An IPv6 address without brackets: everything before the last two colons.
        [.., host, container] => {
            let length = addresses.len() - host.len() - container.len() - 2;
            let ip = &addresses[..length];
            let ip = ip.parse().map_err(|_| ParseError::new(format!("invalid IP address: {ip}")))?;
            Ok((Some(ip), host, container))
        }
        [] => Err(ParseError::new(format!("no port specified: {text}<empty>"))),
    }
}

fn requests(
    host_ip: Option<IpAddr>,
    host: &str,
    container: &str,
    transport: Transport,
) -> Parsed<Vec<PortRequest>> {
    let containers =
        range(container).ok_or_else(|| ParseError::new(format!("invalid containerPort: {container}")))?;
    let request = |host_port, container_port| PortRequest {
        host_ip,
        host_port,
        host_port_last: 0,
        container_port,
        transport,
    };
    if host.is_empty() {
        return Ok(containers.map(|port| request(0, port)).collect());
    }
    // A host port of 0 asks for any free one, but a range may not start there.
    if host == "0" && containers.clone().count() == 1 {
        return Ok(vec![request(0, *containers.start())]);
    }
    let hosts = range(host).ok_or_else(|| ParseError::new(format!("invalid hostPort: {host}")))?;
    let (host_count, container_count) = (hosts.clone().count(), containers.clone().count());
    if host_count == container_count {
        return Ok(hosts.zip(containers).map(|(h, c)| request(h, c)).collect());
    }
    if container_count == 1 {
        // The first free one of them.
        let first = request(*hosts.start(), *containers.start());
        return Ok(vec![PortRequest { host_port_last: *hosts.end(), ..first }]);
    }
    Err(ParseError::new(format!(
        "invalid ranges specified for container and host Ports: {container} and {host}"
    )))
}

fn protocol_of(text: &str) -> Parsed<Transport> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" | "" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        "sctp" => Err(ParseError::new("protocol sctp is not supported yet")),
        _ => Err(ParseError::new(format!("invalid proto: {text}"))),
    }
}

/// `80` or `80-90`, no zeros.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port =
        |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0 && text.bytes().all(|b| b.is_ascii_digit()));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use cata_engine::request::Transport;
    use proptest::prelude::*;

    use super::{exposed, parse};

    fn show(text: &str) -> String {
        match parse(text) {
            Ok(list) => list
                .iter()
                .map(|p| {
                    let ip = p.host_ip.map_or_else(|| "*".to_owned(), |ip| ip.to_string());
                    let transport = if p.transport == Transport::Udp { "/udp" } else { "" };
                    let host = match p.host_port_last {
                        0 => p.host_port.to_string(),
                        last => format!("{}-{last}", p.host_port),
                    };
                    format!("{ip} {host} -> {}{transport}", p.container_port)
                })
                .collect::<Vec<_>>()
                .join(", "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn parse_reads_all_of_dockers_forms() {
        let forms = [
            "80",
            "8080:80",
            "127.0.0.1:8080:80",
            "127.0.0.1::80",
            ":80",
            "0:80",
            "[::1]:8080:80",
            "[::1]::80/udp",
            "::1:8080:80",
            "53:53/udp",
            "8000-8002:80-82",
            "8000-8001",
            "8000-8009:80",
            "published=8080,target=80,protocol=udp",
        ];
        let lines: Vec<String> = forms.iter().map(|form| format!("{form} => {}", show(form))).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        80 => * 0 -> 80
        8080:80 => * 8080 -> 80
        127.0.0.1:8080:80 => 127.0.0.1 8080 -> 80
        127.0.0.1::80 => 127.0.0.1 0 -> 80
        :80 => * 0 -> 80
        0:80 => * 0 -> 80
        [::1]:8080:80 => ::1 8080 -> 80
        [::1]::80/udp => ::1 0 -> 80/udp
        ::1:8080:80 => ::1 8080 -> 80
        53:53/udp => * 53 -> 53/udp
        8000-8002:80-82 => * 8000 -> 80, * 8001 -> 81, * 8002 -> 82
        8000-8001 => * 0 -> 8000, * 0 -> 8001
        8000-8009:80 => * 8000-8009 -> 80
        published=8080,target=80,protocol=udp => * 8080 -> 80/udp
        ");
    }

    #[test]
    fn parse_names_what_is_wrong() {
        let forms = [
            "",
            "a",
            "0",
            "70000",
            "80/icmp",
            "80/sctp",
            "1:2:3",
            "8000-8002:80-81",
            "90-80",
            "host:1:2",
            "+80",
        ];
        let lines: Vec<String> = forms.iter().map(|form| format!("{form} => {}", show(form))).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
         => error: no port specified: <empty>
        a => error: invalid containerPort: a
        0 => error: invalid containerPort: 0
        70000 => error: invalid containerPort: 70000
        80/icmp => error: invalid proto: icmp
        80/sctp => error: protocol sctp is not supported yet
        1:2:3 => error: invalid IP address: 1
        8000-8002:80-81 => error: invalid ranges specified for container and host Ports: 80-81 and 8000-8002
        90-80 => error: invalid containerPort: 90-80
        host:1:2 => error: invalid IP address: host
        +80 => error: invalid containerPort: +80
        ");
    }

    #[test]
    fn exposed_spells_out_ranges() {
        assert_eq!(exposed("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert_eq!(exposed("80").unwrap(), ["80/tcp"]);
        assert!(exposed("80:80").is_err());
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "[0-9a-f:./\\[\\]=,-]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn equal_ranges_pair_up(first in 1u16..60_000, length in 0u16..50, shift in 0u16..5_000) {
            let last = first + length;
            let text = format!("{}-{}:{first}-{last}", first + shift, last + shift);
            let ports = parse(&text).unwrap();
            prop_assert_eq!(ports.len(), usize::from(length) + 1);
            prop_assert!(ports.iter().all(|p| p.host_port == p.container_port + shift));
        }
    }
}
