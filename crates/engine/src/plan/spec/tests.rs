//! What the OCI document says for given requests.

use cata_spec::ContainerId;

use super::*;
use crate::plan::config::{self, ImageDefaults};
use crate::plan::namespaces::{self, Peers};
use crate::record::ImageFacts;
use crate::request::CreateRequest;
use crate::request::tests::request;

struct NoPeers;

impl Peers for NoPeers {
    fn pid(&self, container: &str) -> Result<u32, Error> {
        Err(Error::NoContainer(container.to_owned()))
    }
}

fn spec_of(request: CreateRequest) -> Result<Spec, Error> {
    let id = ContainerId::from_random([7; 32]);
    let image = ImageDefaults { cmd: vec!["sh".into()], ..ImageDefaults::default() };
    let given = Given {
        namespaces: namespaces::plan(&request, &NoPeers)?,
        devices: Vec::new(),
        block: Vec::new(),
        seccomp: None,
        apparmor: None,
        cgroup: PathBuf::from("/catamaran/x"),
        own_network_files: true,
        files: Vec::new(),
    };
    let record = Record {
        version: 1,
        name: cata_spec::Name::parse("web").unwrap(),
        created: 0,
        image: ImageFacts {
            id: "sha256:0".into(),
            reference: "image".into(),
            platform: "linux/amd64".into(),
            layers: Vec::new(),
        },
        config: config::plan(&request, &image, &id)?,
        mounts: Vec::new(),
        id,
        users: None,
        networks: None,
        request,
    };
    plan(&record, &ContainerDir::new(PathBuf::from("/c")), &given)
}

fn has_mount(spec: &Spec, target: &str) -> bool {
    spec.mounts().iter().flatten().any(|m| m.destination() == Path::new(target))
}

#[test]
fn default_container_is_walled_off_in_six_namespaces() {
    let spec = spec_of(request()).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.namespaces().as_ref().unwrap().len(), 6);
    assert!(linux.masked_paths().as_ref().unwrap().contains(&"/proc/kcore".to_owned()));
    assert!(has_mount(&spec, "/etc/hosts") && has_mount(&spec, "/dev/shm"));
}

#[test]
fn privileged_hides_nothing() {
    let mut asked = request();
    asked.privileged = true;
    let spec = spec_of(asked).unwrap();
    assert!(spec.linux().as_ref().unwrap().masked_paths().as_ref().unwrap().is_empty());
    let caps = spec.process().as_ref().unwrap().capabilities().as_ref().unwrap();
    assert_eq!(caps.bounding().as_ref().unwrap().len(), 41);
}

#[test]
fn host_network_refuses_net_sysctls() {
    let mut asked = request();
    asked.network = NetworkMode::Host;
    asked.sysctls.insert("net.core.somaxconn".into(), "1".into());
    let text = spec_of(asked).unwrap_err().to_string();
    assert_eq!(text, "sysctl 'net.core.somaxconn' not allowed in host network namespace");
}

#[test]
fn host_name_is_set_only_in_a_uts_namespace_of_its_own() {
    assert_eq!(spec_of(request()).unwrap().hostname().as_deref(), Some("070707070707"));
    let mut asked = request();
    asked.uts = NamespaceMode::Host;
    assert_eq!(*spec_of(asked).unwrap().hostname(), None);
}

#[test]
fn joining_a_missing_container_names_it() {
    let mut asked = request();
    asked.pid = NamespaceMode::Container("ghost".into());
    assert_eq!(spec_of(asked).unwrap_err().to_string(), "No such container: ghost");
}

#[test]
fn soft_ulimit_above_hard_is_refused() {
    let mut asked = request();
    asked.ulimits = vec![Ulimit { name: "nofile".into(), soft: 10, hard: 5 }];
    assert!(spec_of(asked).unwrap_err().to_string().contains("nofile"));
}
