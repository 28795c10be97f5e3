//! Images, networks and the engine itself as Docker's documents show them.

use cata_image::Image;
use cata_kernel::image::Arch;
use cata_network::Network;
use cata_sandbox::stamp::Stamp;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::host::Facts;
use crate::image::image_error;
use crate::request::MonitorRequest;
use crate::rootless::cgroups;

impl Engine {
    /// An image as Docker's `inspect` document.
    ///
    /// # Errors
    /// No such image.
    pub fn image_inspect(&self, image: &str) -> Result<Value> {
        self.image_inspect_for(image, None)
    }

    /// As [`Engine::image_inspect`]; of an index the member for a platform.
    ///
    /// # Errors
    /// No such image, or not for this platform.
    pub fn image_inspect_for(&self, image: &str, platform: Option<&str>) -> Result<Value> {
        let image = self.image_of(image, platform)?;
        let layers = self.images.layer_paths(&image).map_err(image_error)?;
        let members = self.images.members(&image).map_err(image_error)?;
        let mut document = image_document(&image, &layers);
        if !members.is_empty() {
            document["Manifests"] = members.iter().map(member_document).collect();
        }
        Ok(document)
    }

    /// A network as Docker's `inspect` document.
    ///
    /// # Errors
    /// No such network.
    pub fn network_inspect(&self, network: &str) -> Result<Value> {
        let network = self.network(network)?;
        self.network_document(&network)
    }

    /// The engine and its host: `info`.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn info(&self) -> Result<Value> {
        use cata_sandbox::status::StatusKind;
        let views = self.views()?;
        let count = |kinds: &[StatusKind]| views.iter().filter(|v| kinds.contains(&v.status.status)).count();
        let facts = Facts::read();
        let layout = cata_runtime::cgroup::Layout::detect();
        Ok(json!({
            "ServerVersion": env!("CARGO_PKG_VERSION"),
            "Containers": views.len(),
            "ContainersRunning": count(&[StatusKind::Running, StatusKind::Restarting]),
            "ContainersPaused": count(&[StatusKind::Paused]),
            "ContainersStopped": count(&[StatusKind::Created, StatusKind::Exited]),
            "Images": self.images.list().map_err(image_error)?.len(),
            "Driver": "overlay",
            "LoggingDriver": "json-file",
            "CgroupDriver": if self.host.rootless && cgroups::home().is_none() { "none" } else { "cgroupfs" },
            "CgroupVersion": layout.as_ref().map_or("", |l| if l.is_v2() { "2" } else { "1" }),
            "DefaultRuntime": "cata",
            "Isolation": { "process": "yes", "vm": self.machines_here() },
            "KernelVersion": facts.kernel,
            "OperatingSystem": facts.operating_system,
            "OSVersion": facts.os_version,
            "OSType": "linux",
            "Architecture": facts.machine,
            "NCPU": self.host.cpus,
            "MemTotal": facts.memory,
            "Name": facts.name,
            "DockerRootDir": self.paths.root,
            "StateDir": self.paths.state,
            "SecurityOptions": self.security_options(),
        }))
    }

    /// As Docker's `info` has them; AppArmor where containers get a profile by it.
    fn security_options(&self) -> Vec<&'static str> {
        let mut options = Vec::new();
        if self.apparmor_facts().loads {
            options.push("name=apparmor");
        }
        options.push("name=seccomp,profile=builtin");
        options.push(if self.host.rootless { "name=rootless" } else { "name=cgroupns" });
        options
    }

    /// What would run a virtual machine here, and why.
    fn machines_here(&self) -> String {
        match self.choose_monitor(MonitorRequest::Auto, Arch::NATIVE) {
            Ok(choice) => format!("{} ({})", choice.monitor.as_str(), choice.reason),
            Err(error) => format!("no ({error})"),
        }
    }

    fn network_document(&self, network: &Network) -> Result<Value> {
        let mut document = network_facts(network);
        let mut containers = serde_json::Map::new();
        for view in self.views()? {
            for endpoint in view.network.endpoints.iter().filter(|e| e.network_id == network.id) {
                let address = |a: Option<String>| a.unwrap_or_default();
                containers.insert(
                    view.record.id.to_string(),
                    json!({
                        "Name": view.record.name.as_str(),
                        "EndpointID": endpoint.endpoint_id,
                        "MacAddress": endpoint.mac.map(|b| format!("{b:02x}")).join(":"),
                        "IPv4Address": address(endpoint.ipv4.map(|(a, p)| format!("{a}/{p}"))),
                        "IPv6Address": address(endpoint.ipv6.map(|(a, p)| format!("{a}/{p}"))),
                    }),
                );
            }
        }
        document["Containers"] = Value::Object(containers);
        Ok(document)
    }

    /// What `inspect` without `--type` means by `text`: a container, else an image, a network, a volume.
    ///
    /// # Errors
    /// [`Error::NoObject`].
    pub fn inspect_any(&self, text: &str) -> Result<Value> {
        let missing = |error: &Error| error.kind() == crate::Kind::NotFound;
        let kinds: [fn(&Self, &str) -> Result<Value>; 4] =
            [Self::inspect, Self::image_inspect, Self::network_inspect, Self::volume_inspect];
        for inspect in kinds {
            match inspect(self, text) {
                Err(error) if missing(&error) || error.kind() == crate::Kind::InvalidArgument => {}
                result => return result,
            }
        }
        Err(Error::NoObject(text.to_owned()))
    }
}

/// What a network is, without who is on it.
fn network_facts(network: &Network) -> Value {
    let pools: Vec<Value> = network
        .pools
        .iter()
        .map(|pool| {
            let mut config = json!({ "Subnet": pool.subnet, "Gateway": pool.gateway });
            if let Some(range) = &pool.range {
                config["IPRange"] = json!(range);
            }
            config
        })
        .collect();
    json!({
        "Name": network.name.as_str(),
        "Id": network.id,
        "Created": Stamp(i64::try_from(network.created_ns).unwrap_or(0)),
        "Scope": "local",
        "Driver": network.driver.as_str(),
        "EnableIPv4": true,
        "EnableIPv6": network.ipv6,
        "IPAM": { "Driver": "default", "Options": null, "Config": pools },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": {},
        "Options": network.options,
        "Labels": network.labels,
    })
}

fn image_document(image: &Image, layers: &[std::path::PathBuf]) -> Value {
    let config = &image.config;
    let names =
        |list: &[cata_spec::Reference]| list.iter().map(cata_spec::Reference::familiar).collect::<Vec<_>>();
    json!({
        "Id": image.id.to_string(),
        "RepoTags": names(&image.names),
        "RepoDigests": names(&image.repo_digests),
        "Parent": "",
        "Comment": config.comment.clone().unwrap_or_default(),
        "Created": config.created,
        "DockerVersion": config.docker_version.clone().unwrap_or_default(),
        "Author": config.author.clone().unwrap_or_default(),
        "Config": config.config,
        "Architecture": config.architecture,
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {
            "Name": "overlay",
            "Data": { "LowerDir": layers.iter().map(|l| l.to_string_lossy()).collect::<Vec<_>>().join(":") },
        },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids() },
        "Metadata": { "LastTagTime": ZERO_TIME },
        "Descriptor": {
            "mediaType": image.index.as_ref().map(|index| &index.media_type).or(image.manifest.media_type.as_ref()),
            "digest": image.digest(),
        },
    })
}

/// A member of an index, in the words of Docker's API.
fn member_document(member: &cata_image::Member) -> Value {
    let descriptor = &member.descriptor;
    let kind = if member.is_attestation() { "attestation" } else { "image" };
    let mut document = json!({
        "ID": descriptor.digest,
        "Descriptor": descriptor,
        "Available": member.manifest.is_some(),
        "Kind": kind,
    });
    if member.is_attestation() {
        document["AttestationData"] =
            json!({ "For": descriptor.annotations.get("vnd.docker.reference.digest") });
    } else {
        document["ImageData"] = json!({
            "Platform": descriptor.platform,
            "Id": member.manifest.as_ref().map(|manifest| manifest.config.digest),
        });
    }
    document
}

/// Docker's "never".
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
