//! `--network` in its short and long form, with `--network-alias`, `--ip`, `--ip6` and `--mac-address`.

use std::net::{Ipv4Addr, Ipv6Addr};

use cata_engine::request::{EndpointRequest, Link, NetworkMode};
use cata_spec::Name;

use super::{ParseError, Parsed, mount};

/// What the flags beside `--network` ask for the first network.
#[derive(Debug, Default)]
pub(crate) struct Beside<'a> {
    /// `--network-alias`.
    pub(crate) aliases: &'a [String],
    /// `--ip`.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// `--ip6`.
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// `--mac-address`.
    pub(crate) mac: Option<[u8; 6]>,
    /// `--link`.
    pub(crate) links: &'a [Link],
}

impl Beside<'_> {
    fn is_empty(&self) -> bool {
        self.aliases.is_empty()
            && self.links.is_empty()
            && self.ipv4.is_none()
            && self.ipv6.is_none()
            && self.mac.is_none()
    }
}

/// All `--network` flags together.
pub(crate) fn parse(typed: &[String], beside: &Beside<'_>) -> Parsed<NetworkMode> {
    let mode = match typed {
        [] => NetworkMode::Networks(Vec::new()),
        [one] if one == "none" => NetworkMode::None,
        [one] if one == "host" => NetworkMode::Host,
        [one] if one.starts_with("container:") => container(one)?,
        many => {
            for text in many {
                if text == "none" || text == "host" || text.starts_with("container:") {
                    return Err(ParseError::new(format!(
                        "conflicting options: cannot attach both user-defined and non-user-defined network-modes: {text}"
                    )));
                }
            }
            NetworkMode::Networks(many.iter().map(|text| endpoint(text)).collect::<Parsed<_>>()?)
        }
    };
    lay_over(mode, beside)
}

fn container(text: &str) -> Parsed<NetworkMode> {
    match text.strip_prefix("container:") {
        Some(name) if !name.is_empty() => Ok(NetworkMode::Container(name.to_owned())),
        _ => Err(ParseError::new("invalid container format container:<name|id>")),
    }
}

/// Puts the flags beside `--network` on the first network.
fn lay_over(mode: NetworkMode, beside: &Beside<'_>) -> Parsed<NetworkMode> {
    if beside.is_empty() {
        return Ok(match mode {
            // Only the default bridge: what an empty list means.
            NetworkMode::Networks(list) if is_plain_bridge(&list) => NetworkMode::Networks(Vec::new()),
            mode => mode,
        });
    }
    let NetworkMode::Networks(mut endpoints) = mode else {
        return Err(ParseError::new(
            "conflicting options: addresses, aliases and links cannot be used with --network none, host or container",
        ));
    };
    if endpoints.is_empty() {
        endpoints.push(endpoint("bridge")?);
    }
    let Some(first) = endpoints.first_mut() else { return Ok(NetworkMode::Networks(endpoints)) };
    first.aliases.extend_from_slice(beside.aliases);
    first.links.extend_from_slice(beside.links);
    let both = |flag: &str| {
        ParseError::new(format!("conflicting options: cannot specify both --{flag} and per-network {flag}"))
    };
    if let Some(ip) = beside.ipv4
        && first.ipv4.replace(ip).is_some()
    {
        return Err(both("ip"));
    }
    if let Some(ip) = beside.ipv6
        && first.ipv6.replace(ip).is_some()
    {
        return Err(both("ip6"));
    }
    if let Some(mac) = beside.mac
        && first.mac.replace(mac).is_some()
    {
        return Err(both("mac-address"));
    }
    Ok(NetworkMode::Networks(endpoints))
}

fn is_plain_bridge(endpoints: &[EndpointRequest]) -> bool {
    matches!(endpoints, [one] if one.network.as_str() == "bridge"
        && *one == EndpointRequest::new(one.network.clone()))
}

/// `name` or `name=…,alias=…,ip=…,ip6=…,mac-address=…`.
fn endpoint(text: &str) -> Parsed<EndpointRequest> {
    if !text.contains('=') {
        return Ok(EndpointRequest::new(name(text)?));
    }
    let mut network = None;
    let (mut aliases, mut ipv4, mut ipv6, mut address, mut gateway_priority) =
        (Vec::new(), None, None, None, 0);
    for field in mount::csv(text)? {
        let invalid =
            |value: &str| ParseError::new(format!("invalid value '{value}' in network option '{field}'"));
        match field.split_once('=') {
            Some(("name", value)) => network = Some(name(value)?),
            Some(("alias", value)) => aliases.push(value.to_owned()),
            Some(("ip", value)) => ipv4 = Some(value.parse().map_err(|_| invalid(value))?),
            Some(("ip6", value)) => ipv6 = Some(value.parse().map_err(|_| invalid(value))?),
            Some(("mac-address", value)) => address = Some(mac(value)?),
            Some(("gw-priority", value)) => gateway_priority = value.parse().map_err(|_| invalid(value))?,
            Some((key @ ("driver-opt" | "link-local-ip"), _)) => {
                return Err(ParseError::new(format!("network option '{key}' is not supported yet")));
            }
            _ => return Err(ParseError::new(format!("invalid field {field}"))),
        }
    }
    let network = network.ok_or_else(|| ParseError::new("network name/id is not specified"))?;
    Ok(EndpointRequest { network, aliases, ipv4, ipv6, mac: address, gateway_priority, links: Vec::new() })
}

pub(crate) fn name(text: &str) -> Parsed<Name> {
    let text = if text == "default" { "bridge" } else { text };
    Name::parse(text).map_err(|e| ParseError::new(e.to_string()))
}

/// `container` or `container:alias`.
pub(crate) fn link(text: &str) -> Parsed<Link> {
    let (to, alias) = text.split_once(':').unwrap_or((text, text));
    if to.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(ParseError::new(format!("bad format for links: {text}")));
    }
    Ok(Link { to: to.to_owned(), alias: alias.to_owned() })
}

/// Six hexadecimal pairs, separated by colons or dashes.
pub(crate) fn mac(text: &str) -> Parsed<[u8; 6]> {
    let invalid = || ParseError::new(format!("{text} is not a valid mac address"));
    let mut bytes = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut bytes {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()));
        *byte = u8::from_str_radix(part.ok_or_else(invalid)?, 16).map_err(|_| invalid())?;
    }
    if parts.next().is_some() { Err(invalid()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use cata_engine::request::NetworkMode;

    use super::{Beside, mac, parse};

    fn networks(typed: &[&str], beside: &Beside<'_>) -> Result<NetworkMode, String> {
        let typed: Vec<String> = typed.iter().map(|t| (*t).to_owned()).collect();
        parse(&typed, beside).map_err(|e| e.to_string())
    }

    #[test]
    fn modes_stand_alone() {
        let none = Beside::default();
        assert_eq!(networks(&["host"], &none), Ok(NetworkMode::Host));
        assert_eq!(networks(&["container:pg"], &none), Ok(NetworkMode::Container("pg".to_owned())));
        assert_eq!(networks(&["default"], &none), Ok(NetworkMode::Networks(Vec::new())));
        assert!(networks(&["host", "app"], &none).is_err());
        assert!(networks(&["container:"], &none).is_err());
        let beside = Beside { ipv4: Some("10.0.0.2".parse().unwrap()), ..Beside::default() };
        assert!(networks(&["host"], &beside).is_err());
    }

    #[test]
    fn long_form_carries_aliases_and_addresses() {
        let aliases = ["db".to_owned()];
        let beside = Beside { aliases: &aliases, ..Beside::default() };
        let typed = ["name=app,alias=pg,ip=10.1.0.5,mac-address=02:42:ac:11:00:02", "other"];
        let Ok(NetworkMode::Networks(list)) = networks(&typed, &beside) else { panic!("not networks") };
        assert_eq!(list[0].aliases, ["pg", "db"]);
        assert_eq!(list[0].ipv4, Some("10.1.0.5".parse().unwrap()));
        assert_eq!(list[1].network.as_str(), "other");
        assert!(networks(&["name=app,colour=blue"], &Beside::default()).is_err());
        assert!(networks(&["alias=x"], &Beside::default()).is_err());
        let beside = Beside { ipv4: Some("10.0.0.2".parse().unwrap()), ..Beside::default() };
        assert!(networks(&typed, &beside).unwrap_err().contains("both --ip"));
    }

    #[test]
    fn mac_needs_six_pairs() {
        assert_eq!(mac("02:42:ac:11:00:02"), Ok([2, 0x42, 0xac, 0x11, 0, 2]));
        for bad in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "zz:42:ac:11:00:02", "2:42:ac:11:00:02"] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }
}
