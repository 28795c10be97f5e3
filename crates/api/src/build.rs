//! `POST /build`: the classic one, whose context is the request's body. Clients that want BuildKit bring a session of
//! their own, which is not there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use cata_engine::build::{
    AllowDevices, BuildEvent, BuildProgress, BuildRequest, CacheFilter, Context, DockerfileText,
    ImageOptions, Keep, PruneRequest,
};
use cata_engine::request::{Isolation, Ulimit};
use cata_spec::Reference;
use serde_json::{Value, json};

use crate::call::{Answer, Call, Output};
use crate::fields::Fields;
use crate::image::{fail, logged_in_everywhere};
use crate::refusal::{Outcome, Refusal};
use crate::shared::{Server, Shared, locked};

/// What the query can say beyond what is read here, and that would be another build. (`cachefrom` names images of
/// the store, whose steps are looked at anyway; `rm` and `forcerm` speak of containers that no step leaves behind.)
const REFUSED: [&str; 11] = [
    "remote",
    "memory",
    "memswap",
    "cpushares",
    "cpusetcpus",
    "cpusetmems",
    "cpuquota",
    "cpuperiod",
    "squash",
    "outputs",
    "securityopt",
];

pub(crate) fn build(server: &Shared, mut call: Call) -> Outcome<Answer> {
    if call.word("version") == Some("2") {
        return Err(Refusal::unsupported(
            "a build by BuildKit: set DOCKER_BUILDKIT=0, or use `cata build`; it",
        ));
    }
    for name in REFUSED {
        if let Some(value) = call.word(name).filter(|value| !matches!(*value, "0" | "null" | "[]" | "false"))
        {
            return Err(Refusal::unsupported(format!("{name}={value} of a build")));
        }
    }
    let mut request = request(&call)?;
    let name = call.word("dockerfile").unwrap_or("Dockerfile").to_owned();
    let quiet = call.flag("q");
    let unpacked = server.engine.build_context(&mut call.body)?;
    request.dockerfile = dockerfile(&unpacked.path(), &name)?;
    request.context = Context::Directory(unpacked.path());
    let engine = logged_in_everywhere(server, &call);
    Answer::lines(move |output| {
        let teller = Teller { output: Mutex::new(output), quiet };
        let built = engine.build(&request, &teller);
        drop(unpacked);
        match built {
            Err(error) => fail(output, &error.into()),
            Ok(built) => {
                for warning in built.warnings.iter().filter(|_| !quiet) {
                    let _ = output.line(&json!({ "stream": format!("[Warning] {warning}\n") }));
                }
                let Some(image) = &built.image else { return };
                let id = image.id.to_string();
                if quiet {
                    let _ = output.line(&json!({ "stream": format!("{id}\n") }));
                    return;
                }
                let _ = output.line(&json!({ "aux": { "ID": id } }));
                let _ = output
                    .line(&json!({ "stream": format!("Successfully built {}\n", &image.id.hex()[..12]) }));
                for tag in &request.tags {
                    let _ = output
                        .line(&json!({ "stream": format!("Successfully tagged {}\n", tag.familiar()) }));
                }
            }
        }
    })
}

fn request(call: &Call) -> Outcome<BuildRequest> {
    let tags = call.words("t").into_iter().filter(|tag| !tag.is_empty());
    let tags = tags.map(|tag| Reference::parse(tag).map_err(|e| Refusal::invalid(e.to_string())));
    let platforms = call.word("platform").map(|list| list.split(',').map(str::to_owned).collect());
    let mut extra_hosts = Vec::new();
    for text in
        call.words("extrahosts").iter().flat_map(|list| list.split(',')).filter(|text| !text.is_empty())
    {
        let (name, address) = text
            .split_once([':', '='])
            .ok_or_else(|| Refusal::invalid(format!("invalid extra host: {text}")))?;
        extra_hosts.push((name.to_owned(), address.to_owned()));
    }
    let args = pairs(call, "buildargs")?;
    let epoch = args
        .get("SOURCE_DATE_EPOCH")
        .map(|text| text.parse().map_err(|_| Refusal::invalid(format!("invalid SOURCE_DATE_EPOCH: {text}"))));
    Ok(BuildRequest {
        context: Context::Empty,
        source: None,
        dockerfile: DockerfileText { name: String::new(), text: String::new(), ignore: None },
        tags: tags.collect::<Outcome<_>>()?,
        epoch: epoch.transpose()?,
        args,
        target: call.word("target").map(str::to_owned),
        labels: pairs(call, "labels")?,
        output: ImageOptions::default(),
        no_cache: call.flag("nocache"),
        no_cache_filter: Vec::new(),
        pull: call.flag("pull"),
        platforms: platforms.unwrap_or_default(),
        secrets: BTreeMap::new(),
        ssh: BTreeMap::new(),
        isolation: Isolation::Process,
        network: call.word("networkmode").unwrap_or("default").to_owned(),
        extra_hosts,
        shm_size: call.number("shmsize")?.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
        ulimits: ulimits(call)?,
        cgroup_parent: call.word("cgroupparent").map(str::to_owned),
        contexts: BTreeMap::new(),
        allow_insecure: false,
        allow_devices: AllowDevices::None,
        store: true,
        cache_from: Vec::new(),
        cache_to: Vec::new(),
    })
}

/// A word of the query that is a document; none is null.
fn document(call: &Call, name: &str) -> Outcome<Value> {
    let Some(text) = call.word(name) else { return Ok(Value::Null) };
    serde_json::from_str(text).map_err(|e| Refusal::invalid(format!("invalid {name}: {e}")))
}

/// Names with values; one without a value is the client's way of saying that it has none.
fn pairs(call: &Call, name: &str) -> Outcome<BTreeMap<String, String>> {
    let mut pairs = BTreeMap::new();
    if let Value::Object(map) = document(call, name)? {
        for (key, value) in map {
            match value {
                Value::String(text) => drop(pairs.insert(key, text)),
                Value::Null => {}
                _ => return Err(Refusal::invalid(format!("invalid {name}: {key} must be a string"))),
            }
        }
    }
    Ok(pairs)
}

fn ulimits(call: &Call) -> Outcome<Vec<Ulimit>> {
    let mut list = Vec::new();
    let mut fields = Fields::new("", json!({ "ulimits": document(call, "ulimits")? }))?;
    for mut limit in fields.objects("ulimits")? {
        let name = limit.text("Name")?.unwrap_or_default();
        let (soft, hard) = (limit.number("Soft")?.unwrap_or(0), limit.number("Hard")?.unwrap_or(0));
        limit.finish()?;
        list.push(Ulimit { name, soft, hard });
    }
    Ok(list)
}

/// The Dockerfile in a context, wherever links in it lead: beneath the context.
fn dockerfile(context: &Path, name: &str) -> Outcome<DockerfileText> {
    let path = context.join(name);
    let inside =
        path.canonicalize().is_ok_and(|real| context.canonicalize().is_ok_and(|top| real.starts_with(top)));
    if !inside {
        return Err(Refusal::invalid(format!(
            "Cannot locate specified Dockerfile: {name} is not in the build context"
        )));
    }
    let text = fs::read_to_string(&path).map_err(|e| Refusal::invalid(format!("cannot read {name}: {e}")))?;
    let ignore = fs::read_to_string(context.join(format!("{name}.dockerignore"))).ok();
    Ok(DockerfileText { name: name.to_owned(), text, ignore })
}

/// Tells of a build in the classic builder's lines.
struct Teller<'o> {
    output: Mutex<&'o Output>,
    quiet: bool,
}

impl BuildProgress for Teller<'_> {
    fn event(&self, event: BuildEvent<'_>) {
        let text = match event {
            _ if self.quiet => return,
            BuildEvent::Begin { title, .. } => format!("Step {title}\n"),
            BuildEvent::Line { text, .. } => format!("{}\n", String::from_utf8_lossy(text)),
            BuildEvent::End { cached: true, .. } => " ---> Using cache\n".to_owned(),
            BuildEvent::Pull { .. } | BuildEvent::End { .. } => return,
        };
        // A client that has gone does not end a build: its steps are kept for the next one.
        let _ = locked(&self.output).line(&json!({ "stream": text }));
    }
}

/// `POST /build/prune`.
pub(crate) fn prune(server: &Server, call: &Call) -> Outcome<Answer> {
    let filters = call.filters(&["until"])?;
    let until = match filters.values("until").first() {
        None => None,
        Some(text) => {
            let moment = crate::time::moment(text);
            let moment = moment.ok_or_else(|| Refusal::invalid(format!("invalid until: {text}")))?;
            let back = cata_engine::Stamp::now().unix_nanos().saturating_sub(moment);
            Some(std::time::Duration::from_nanos(u64::try_from(back).unwrap_or(0)))
        }
    };
    let filter = CacheFilter { until, ..CacheFilter::default() };
    let reserved =
        call.number("keep-storage")?.and_then(|bytes| u64::try_from(bytes).ok()).filter(|n| *n > 0);
    let keep = Keep { reserved, ..Keep::default() };
    let pruned = server.engine.build_prune(&PruneRequest { all: call.flag("all"), filter, keep })?;
    let ids: Vec<&str> = pruned.entries.iter().map(|entry| entry.id.as_str()).collect();
    Answer::ok(json!({ "CachesDeleted": ids, "SpaceReclaimed": pruned.freed }))
}
