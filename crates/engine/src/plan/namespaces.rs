//! PURE: which namespaces a container gets of its own, shares with the host, or joins.

use std::path::PathBuf;

use cata_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType};

use crate::error::Error;
use crate::request::{CreateRequest, NamespaceMode, NetworkMode, UserNamespace};

/// How each other container's namespaces are found: its init process's pid.
pub trait Peers {
    /// The pid of a running container, as typed by the user.
    ///
    /// # Errors
    /// When there is none, or it does not run.
    fn pid(&self, container: &str) -> Result<u32, Error>;
}

/// The OCI list.
///
/// A network namespace of its own is in the list without a path: the engine hands it over as a descriptor.
///
/// # Errors
/// Whatever [`Peers::pid`] says.
pub fn plan(request: &CreateRequest, peers: &dyn Peers) -> Result<Vec<LinuxNamespace>, Error> {
    let mut list = vec![namespace(LinuxNamespaceType::Mount, None)?];
    if request.userns != UserNamespace::Host {
        list.push(namespace(LinuxNamespaceType::User, None)?);
    }
    let modes = [
        (LinuxNamespaceType::Pid, &request.pid, "pid"),
        (LinuxNamespaceType::Ipc, &request.ipc, "ipc"),
        (LinuxNamespaceType::Uts, &request.uts, "uts"),
        (LinuxNamespaceType::Cgroup, &request.cgroupns, "cgroup"),
    ];
    for (kind, mode, file) in modes {
        match mode {
            NamespaceMode::Host => {}
            NamespaceMode::Private | NamespaceMode::Shareable | NamespaceMode::None => {
                list.push(namespace(kind, None)?);
            }
            NamespaceMode::Container(name) => list.push(namespace(kind, Some((peers.pid(name)?, file)))?),
        }
    }
    match &request.network {
        NetworkMode::Host => {}
        NetworkMode::Container(name) => {
            list.push(namespace(LinuxNamespaceType::Network, Some((peers.pid(name)?, "net")))?);
        }
        NetworkMode::None | NetworkMode::Networks(_) => {
            list.push(namespace(LinuxNamespaceType::Network, None)?);
        }
    }
    Ok(list)
}

fn namespace(kind: LinuxNamespaceType, joined: Option<(u32, &str)>) -> Result<LinuxNamespace, Error> {
    let mut namespace = LinuxNamespaceBuilder::default().typ(kind);
    if let Some((pid, file)) = joined {
        namespace = namespace.path(PathBuf::from(format!("/proc/{pid}/ns/{file}")));
    }
    namespace.build().map_err(|e| Error::Invalid(e.to_string()))
}

/// Checks combinations that cannot work, at creation.
///
/// # Errors
/// [`Error::Invalid`] with Docker's words.
pub fn check(request: &CreateRequest) -> Result<(), Error> {
    let conflict = |text: &str| Err(Error::Invalid(format!("conflicting options: {text}")));
    if request.uts == NamespaceMode::Host && request.hostname.is_some() {
        return conflict("hostname and the UTS mode");
    }
    match &request.network {
        NetworkMode::Host | NetworkMode::Container(_) if !request.ports.is_empty() => {
            if matches!(request.network, NetworkMode::Container(_)) {
                return conflict("port publishing and the container type network mode");
            }
        }
        NetworkMode::Container(_) if request.hostname.is_some() => {
            return conflict("hostname and the network mode");
        }
        NetworkMode::Container(_) if !request.dns.is_empty() => {
            return conflict("dns and the network mode");
        }
        NetworkMode::Container(_) if !request.extra_hosts.is_empty() => {
            return conflict("custom host-to-IP mapping and the network mode");
        }
        _ => {}
    }
    if request.privileged && request.security.no_new_privileges {
        // Allowed by Docker too; kept.
    }
    Ok(())
}
