//! Descriptions of devices: which holds, what a container gets.

use std::fs;
use std::path::{Path, PathBuf};

use cata_spec::runtime::Spec;
use tempfile::TempDir;

use super::{Catalog, apply};
use crate::error::Error;
use crate::request::{DeviceName, GpuRequest, Gpus};

const DESCRIPTION: &str = r#"
cdiVersion: "0.6.0"
kind: vendor.com/net
annotations: {a: b}
containerEdits:
  env: [ALL=1, PATH=/other]
devices:
  - name: "0"
    containerEdits:
      env: [NUMBER=0]
      deviceNodes:
        - path: /dev/net0
          hostPath: /dev/host0
          permissions: rw
        - {path: /dev/net1, type: c, major: 10, minor: 11, fileMode: 384, uid: 3, gid: 4}
      mounts:
        - {hostPath: /usr/lib/vendor, containerPath: /lib/vendor, options: [ro, nosuid, bind]}
      hooks:
        - {hookName: createContainer, path: /bin/link, args: [link, --all], env: [A=b], timeout: 5}
      additionalGids: [0, 44]
  - name: all
    containerEdits: {env: [NUMBER=all]}
"#;

fn name(text: &str) -> DeviceName {
    DeviceName::new(text).unwrap()
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn applied(catalog: &Catalog, names: &[&str]) -> Result<Spec, Error> {
    let names: Vec<_> = names.iter().map(|text| name(text)).collect();
    let mut spec = Spec::default();
    apply(&mut spec, &catalog.edits(&names)?, &|path| {
        assert_eq!(path, Path::new("/dev/host0"));
        Ok((false, 195, 7))
    })?;
    Ok(spec)
}

#[test]
fn a_device_is_what_its_vendor_says() {
    let dir = directory(&[("vendor.yaml", DESCRIPTION), ("README", "no description")]);
    let catalog = Catalog::read(&[dir.path(), Path::new("/nowhere")]);
    assert_eq!(catalog.names().collect::<Vec<_>>(), ["vendor.com/net=0", "vendor.com/net=all"]);
    let spec = applied(&catalog, &["vendor.com/net=0", "vendor.com/net=all", "vendor.com/net=0"]).unwrap();
    let process = spec.process().as_ref().unwrap();
    let env = process.env().as_ref().unwrap();
    // What is for all of a description comes once and first; what was there of that name goes.
    let ours: Vec<_> = env.iter().filter(|variable| !variable.starts_with("TERM=")).collect();
    assert_eq!(ours, ["ALL=1", "PATH=/other", "NUMBER=all"]);
    assert_eq!(process.user().additional_gids(), &Some(vec![44]));
    let linux = spec.linux().as_ref().unwrap();
    let nodes = linux.devices().as_ref().unwrap();
    let known = |path: &str| nodes.iter().find(|node| node.path() == Path::new(path)).unwrap();
    let first = known("/dev/net0");
    assert_eq!((first.major(), first.minor(), first.file_mode()), (195, 7, Some(0o666)));
    let second = known("/dev/net1");
    assert_eq!(
        (second.minor(), second.file_mode(), second.uid(), second.gid()),
        (11, Some(0o600), Some(3), Some(4))
    );
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    let rule = rules.iter().find(|rule| rule.major() == Some(195)).unwrap();
    assert_eq!((rule.allow(), rule.minor(), rule.access().as_deref()), (true, Some(7), Some("rw")));
    let mounts = spec.mounts().as_ref().unwrap();
    let mount = mounts.iter().find(|mount| mount.destination() == Path::new("/lib/vendor")).unwrap();
    assert_eq!(mount.source(), &Some(PathBuf::from("/usr/lib/vendor")));
    let hooks = spec.hooks().as_ref().unwrap().create_container().as_ref().unwrap();
    assert_eq!((hooks[0].path(), hooks[0].timeout()), (&PathBuf::from("/bin/link"), Some(5)));
}

#[test]
fn a_later_directory_holds_and_rivals_are_an_error() {
    let with = |value: &str| {
        format!(
            r#"{{"cdiVersion":"1.0.0","kind":"a.b/c","devices":[{{"name":"d","containerEdits":{{"env":["V={value}"]}}}}]}}"#
        )
    };
    let first = directory(&[("a.json", &with("first"))]);
    let second = directory(&[("a.json", &with("second"))]);
    let spec = applied(&Catalog::read(&[first.path(), second.path()]), &["a.b/c=d"]).unwrap();
    assert!(spec.process().as_ref().unwrap().env().as_ref().unwrap().contains(&"V=second".to_owned()));
    fs::write(second.path().join("b.json"), with("third")).unwrap();
    let error =
        applied(&Catalog::read(&[first.path(), second.path()]), &["a.b/c=d"]).unwrap_err().to_string();
    assert!(error.contains("a.json") && error.contains("b.json") && error.contains("a.b/c=d"), "{error}");
}

#[test]
fn what_is_missing_is_told_with_the_reason() {
    let hint = |catalog: &Catalog| match catalog.edits(&[name("vendor.com/net=9")]) {
        Err(error @ Error::NoDevice { .. }) => {
            assert!(error.to_string().contains("vendor.com/net=9"));
            error.hint().unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert!(hint(&Catalog::default()).contains("/etc/cdi"));
    let dir = directory(&[("vendor.yaml", DESCRIPTION)]);
    assert!(hint(&Catalog::read(&[dir.path()])).contains("vendor.com/net=0, vendor.com/net=all"));
    for (broken, word) in [
        ("{", "EOF"),
        (r#"{"cdiVersion":"1.0.0","kind":"none","devices":[]}"#, "vendor/class"),
        (r#"{"cdiVersion":"2.0.0","kind":"a/b","devices":[]}"#, "2.0.0"),
        (r#"{"cdiVersion":"1.0.0","kind":"a/b","devices":[],"flags":1}"#, "flags"),
    ] {
        let dir = directory(&[("broken.json", broken)]);
        let hint = hint(&Catalog::read(&[dir.path()]));
        assert!(hint.contains("broken.json") && hint.contains(word), "{hint}");
    }
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    for (edits, word) in [
        (r#"{"netDevices":[{"hostInterfaceName":"ib0","name":"eth1"}]}"#, "ib0"),
        (r#"{"intelRdt":{"closID":"a"}}"#, "Intel RDT"),
        (r#"{"hooks":[{"hookName":"poststop","path":"/bin/x"}]}"#, "poststop"),
        (r#"{"deviceNodes":[{"path":"/dev/x","type":"p","major":1,"minor":1}]}"#, "no device"),
        (
            r#"{"deviceNodes":[{"path":"/dev/x","type":"c","major":1,"minor":1,"permissions":"x"}]}"#,
            "permissions",
        ),
    ] {
        let text = format!(
            r#"{{"cdiVersion":"1.1.0","kind":"a.b/c","devices":[{{"name":"d","containerEdits":{edits}}}]}}"#
        );
        let dir = directory(&[("a.json", &text)]);
        let error = applied(&Catalog::read(&[dir.path()]), &["a.b/c=d"]).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("a.b/c=d"), "{error}");
    }
}

#[test]
fn graphics_processors_are_found_by_their_vendors() {
    let of = |kind: &str| {
        format!(
            "{{\"cdiVersion\":\"0.5.0\",\"kind\":\"{kind}\",\"devices\":[{{\"name\":\"all\",\"containerEdits\":{{}}}}]}}"
        )
    };
    let ask = |driver: Option<&str>, gpus: Gpus| GpuRequest { driver: driver.map(str::to_owned), gpus };
    let amd = directory(&[("amd.json", &of("amd.com/gpu"))]);
    let only_amd = Catalog::read(&[amd.path()]);
    assert_eq!(only_amd.gpus(&ask(None, Gpus::All)).unwrap(), [name("amd.com/gpu=all")]);
    fs::write(amd.path().join("nvidia.json"), of("nvidia.com/gpu")).unwrap();
    let both = Catalog::read(&[amd.path()]);
    let two = [name("nvidia.com/gpu=0"), name("nvidia.com/gpu=1")];
    assert_eq!(both.gpus(&ask(None, Gpus::Count(2))).unwrap(), two);
    let named = Gpus::Named(vec!["GPU-3".to_owned()]);
    assert_eq!(both.gpus(&ask(Some("amd"), named)).unwrap(), [name("amd.com/gpu=GPU-3")]);
    assert!(both.gpus(&ask(Some("other"), Gpus::All)).unwrap_err().to_string().contains("other"));
}
