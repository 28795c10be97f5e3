//! The engine itself: `version`, `info`, `events`, `system/df`.

use std::os::fd::AsFd as _;

use cata_engine::event;
use cata_engine::journal::Query;
use cata_engine::plan::events::{EventFilter, NAMES};
use cata_spec::Reference;
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::refusal::{Outcome, Refusal};
use crate::server::{NEWEST, OLDEST};
use crate::shared::{Server, Shared};
use crate::time;

/// `GET /version`.
pub(crate) fn version(server: &Server) -> Outcome<Answer> {
    let info = server.engine.info()?;
    let versions = [format!("1.{NEWEST}"), format!("1.{OLDEST}")];
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let details = json!({
        "ApiVersion": versions[0], "MinAPIVersion": versions[1], "Os": "linux", "Arch": architecture,
        "KernelVersion": info["KernelVersion"],
    });
    let mut document = json!({
        "Platform": { "Name": "Catamaran" },
        "Version": env!("CARGO_PKG_VERSION"),
        "Components": [{ "Name": "Engine", "Version": env!("CARGO_PKG_VERSION"), "Details": details }],
    });
    if let (Value::Object(document), Value::Object(details)) = (&mut document, details) {
        document.extend(details);
    }
    Answer::ok(document)
}

/// `GET /info`: what the engine says, and what clients look for besides.
pub(crate) fn info(server: &Server) -> Outcome<Answer> {
    let mut info = server.engine.info()?;
    let more = json!({
        "ID": info["Name"],
        "DriverStatus": [],
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "null"], "Log": ["json-file", "none"] },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "OomKillDisable": true,
        "IPv4Forwarding": true,
        "BridgeNfIptables": true,
        "BridgeNfIp6tables": true,
        "Debug": false,
        "NFd": 0,
        "NGoroutines": 0,
        "SystemTime": cata_engine::Stamp::now(),
        "NEventsListener": 0,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": { "InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": [] },
        "Labels": [],
        "ExperimentalBuild": false,
        "Runtimes": { "cata": { "path": "cata-supervisor" } },
        "Swarm": { "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false,
            "Error": "", "RemoteManagers": null },
        "LiveRestoreEnabled": true,
        "InitBinary": "cata-supervisor",
        "HttpProxy": "", "HttpsProxy": "", "NoProxy": "",
        "Warnings": null,
    });
    // Docker has isolation as a word, and only on Windows.
    if let (Value::Object(info), Value::Object(more)) = (&mut info, more) {
        info.remove("Isolation");
        for (name, value) in more {
            info.entry(name).or_insert(value);
        }
    }
    Answer::ok(info)
}

/// `GET /events`.
pub(crate) fn events(server: &Shared, call: &Call) -> Outcome<Answer> {
    let filter = EventFilter::new(call.filters(&NAMES)?.0)?;
    let moment = |name: &str| -> Outcome<Option<i64>> {
        let Some(text) = call.word(name) else { return Ok(None) };
        time::moment(text).map(Some).ok_or_else(|| Refusal::invalid(format!("invalid {name}: {text}")))
    };
    let (since, until) = (moment("since")?, moment("until")?);
    // From here on nothing is missed, however long the thread takes to begin.
    let asked = cata_engine::Stamp::now().unix_nanos();
    let server = Shared::clone(server);
    Answer::lines(move |output| {
        let since = since.unwrap_or(asked);
        let query = Query { since: Some(since), until, cancel: Some(output.gone.as_fd()) };
        let _ =
            server.engine.events(&query, &filter, &mut |entry| output.line(&event::document(entry)).is_ok());
    })
}

/// `GET /system/df`.
pub(crate) fn disk(server: &Server, call: &Call) -> Outcome<Answer> {
    let usage = server.engine.disk_usage()?;
    let kinds = call.words("type");
    let wanted = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let images = usage.images.iter().map(|one| {
        let created = one.image.created().and_then(cata_engine::Stamp::parse);
        json!({
            "Id": one.image.id.to_string(), "ParentId": "",
            "RepoTags": one.image.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
            "RepoDigests": one.image.repo_digests.iter().map(Reference::familiar).collect::<Vec<_>>(),
            "Created": created.map_or(0, |stamp| stamp.unix_nanos() / 1_000_000_000),
            "Size": one.image.size, "VirtualSize": one.image.size, "SharedSize": one.shared,
            "Containers": one.containers, "Labels": one.image.config.config.labels,
        })
    });
    let containers = usage.containers.iter().map(|one| {
        let state = cata_engine::container::inspect::status_word(one.status.status);
        json!({
            "Id": one.record.id.as_str(), "Names": [format!("/{}", one.record.name)],
            "Image": one.record.image.reference, "ImageID": one.record.image.id,
            "Command": one.record.config.argv.join(" "), "Created": one.record.created / 1_000_000_000,
            "SizeRw": one.written, "State": state, "Status": state, "Labels": one.record.config.labels,
            "Ports": [], "HostConfig": {}, "NetworkSettings": null, "Mounts": [],
        })
    });
    let volumes = usage.volumes.iter().map(|one| {
        let mut document = server.engine.volume_document(&one.volume);
        document["UsageData"] = json!({ "Size": one.size, "RefCount": one.containers });
        document
    });
    let cache = usage.build_cache.iter().map(|entry| {
        json!({ "ID": entry.id, "Parent": "", "Type": entry.kind, "Description": entry.description,
            "InUse": false, "Shared": entry.shared, "Size": entry.size,
            "CreatedAt": "0001-01-01T00:00:00Z", "LastUsedAt": null, "UsageCount": 0 })
    });
    let mut document = json!({ "LayersSize": usage.layers });
    let of = |kind: &str, list: Vec<Value>| if wanted(kind) { json!(list) } else { Value::Null };
    document["Images"] = of("image", images.collect());
    document["Containers"] = of("container", containers.collect());
    document["Volumes"] = of("volume", volumes.collect());
    document["BuildCache"] = of("build-cache", cache.collect());
    Answer::ok(document)
}
