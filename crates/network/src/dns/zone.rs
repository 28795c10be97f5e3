//! What the networks' directories know of a subject: read at every question.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::DnsPlan;
use super::answer::Zone;
use super::message::Subject;

/// Looks a subject up in every network of the plan.
///
/// What cannot be read knows nothing: a network that is gone has no names.
#[must_use]
pub fn look_up(plan: &DnsPlan, subject: &Subject) -> Zone {
    let mut zone = Zone::default();
    match subject {
        Subject::Name(name) => {
            let link = plan.links.iter().find(|(alias, _)| alias == name);
            let name = link.map_or(name, |(_, to)| to);
            let hosts = plan.hosts.iter().filter(|(host, _)| host == name);
            zone.addresses.extend(hosts.map(|(_, address)| *address));
            for directory in &plan.networks {
                // `db.web` is `db` on the network `web`, unless somebody is called `db.web`.
                let qualified = network_name(directory)
                    .and_then(|network| name.strip_suffix(&network.to_ascii_lowercase())?.strip_suffix('.'));
                let before = zone.addresses.len();
                addresses(directory, name, &mut zone.addresses);
                if let Some(name) = qualified.filter(|_| zone.addresses.len() == before) {
                    addresses(directory, name, &mut zone.addresses);
                }
            }
        }
        Subject::Address(address) => {
            for directory in &plan.networks {
                let lease = fs::read_link(directory.join("leases").join(address.to_string()));
                let text = lease.as_deref().ok().and_then(Path::to_str);
                if let (Some((_, name)), Some(network)) =
                    (text.and_then(|text| text.split_once(' ')), network_name(directory))
                {
                    zone.names.push(format!("{name}.{network}"));
                }
            }
        }
        Subject::Foreign => {}
    }
    zone
}

fn addresses(directory: &Path, name: &str, found: &mut Vec<IpAddr>) {
    let Ok(entries) = fs::read_dir(directory.join("names")) else { return };
    let mut matching: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            let file = entry.file_name();
            file.to_str().and_then(|file| file.split_once('@')).is_some_and(|(first, _)| first == name)
        })
        .map(|entry| entry.path())
        .collect();
    // The order of a directory says nothing; rotation needs one that stays.
    matching.sort();
    for path in matching {
        let text = fs::read_link(path);
        let words = text.as_deref().ok().and_then(Path::to_str).unwrap_or_default().split(' ');
        found.extend(words.filter_map(|word| word.parse::<IpAddr>().ok()));
    }
}

fn network_name(directory: &Path) -> Option<&str> {
    directory.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn look_up_reads_names_aliases_and_addresses() {
        let root = tempfile::tempdir().unwrap();
        let web = root.path().join("web");
        fs::create_dir_all(web.join("names")).unwrap();
        fs::create_dir_all(web.join("leases")).unwrap();
        symlink("10.0.0.3 fd00::3", web.join("names/db@bbbb")).unwrap();
        symlink("10.0.0.2", web.join("names/db@aaaa")).unwrap();
        symlink("10.0.0.9", web.join("names/other@aaaa")).unwrap();
        symlink("ffff db1", web.join("leases/10.0.0.2")).unwrap();
        let plan = DnsPlan {
            networks: vec![web, root.path().join("gone")],
            upstream: Vec::new(),
            hosts: vec![("host.docker.internal".to_owned(), "10.0.0.1".parse().unwrap())],
            links: vec![("store".to_owned(), "db".to_owned())],
        };
        let all = |name: &str| {
            let zone = look_up(&plan, &Subject::Name(name.to_owned()));
            zone.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(all("db"), "10.0.0.2 10.0.0.3 fd00::3");
        assert_eq!(all("db.web"), "10.0.0.2 10.0.0.3 fd00::3");
        assert_eq!(all("d"), "");
        assert_eq!(all("store"), all("db"));
        assert_eq!(all("host.docker.internal"), "10.0.0.1");
        let back = look_up(&plan, &Subject::Address("10.0.0.2".parse().unwrap()));
        assert_eq!(back.names, ["db1.web"]);
    }
}
