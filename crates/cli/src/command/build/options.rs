//! The flags of `build`, and the request they make.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use cata_engine::build::{
    AllowDevices, BuildRequest, CachePlace, CacheTarget, Context, DockerfileText, GitSource, NamedContext,
    Secret, is_remote,
};
use cata_engine::request::{Isolation, Ulimit};
use cata_spec::Reference;
use clap::Args;

use super::screen::Progress;
use crate::parse;
use crate::parse::mount::csv;
use crate::render::error::Failure;

/// A Dockerfile on standard input may be that long.
const TEXT_MAX: u64 = 4 << 20;
/// A named context that is an image.
const IMAGE: &str = "docker-image://";
/// A named context that is an image in a directory.
const LAYOUT: &str = "oci-layout://";

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Name of the image (name:tag)
    #[arg(short, long, value_name = "string")]
    pub(super) tag: Vec<String>,
    /// Name of the Dockerfile (PATH/Dockerfile); - is standard input
    #[arg(short, long, value_name = "string")]
    file: Option<String>,
    /// A Dockerfile's text, where there is no file: what a project has in its own.
    #[arg(skip)]
    pub(super) inline: Option<String>,
    /// Build this stage
    #[arg(long, value_name = "string")]
    target: Option<String>,
    /// Set a build argument
    #[arg(long, value_name = "name=value")]
    build_arg: Vec<String>,
    /// Set a label of the image
    #[arg(long, value_name = "name=value")]
    label: Vec<String>,
    /// Set an annotation of the image ([manifest|index|manifest-descriptor][[os/arch]]:name=value)
    #[arg(long, value_name = "name=value")]
    pub(super) annotation: Vec<String>,
    /// Do not use what earlier builds made
    #[arg(long)]
    no_cache: bool,
    /// Do not use what earlier builds made of these stages
    #[arg(long, value_name = "stage", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Always try to pull newer images that the build begins with
    #[arg(long)]
    pull: bool,
    /// Platforms to build for; of several an index is made
    #[arg(long, value_name = "os/arch", value_delimiter = ',')]
    platform: Vec<String>,
    /// Secret for RUN --mount=type=secret (id=ID,src=FILE or id=ID,env=NAME)
    #[arg(long, value_name = "secret")]
    secret: Vec<String>,
    /// Agent or keys for RUN --mount=type=ssh (default|ID=SOCKET|ID=KEY[,KEY...])
    #[arg(long, value_name = "ssh")]
    ssh: Vec<String>,
    /// What RUN is walled off with (process or vm)
    #[arg(long, value_name = "string", value_parser = parse::namespace::isolation)]
    isolation: Option<Isolation>,
    /// Network of RUN (default, none, host, or a network)
    #[arg(long, value_name = "string", default_value = "default")]
    network: String,
    /// Add a line to /etc/hosts of RUN (name:address)
    #[arg(long, value_name = "name:ip", value_parser = parse::host::parse)]
    add_host: Vec<(String, String)>,
    /// Size of /dev/shm of RUN
    #[arg(long, value_name = "bytes", value_parser = parse::size::binary)]
    shm_size: Option<u64>,
    /// Ulimits of RUN
    #[arg(long, value_name = "ulimit", value_parser = parse::ulimit::parse)]
    ulimit: Vec<Ulimit>,
    /// Parent of the cgroups of RUN
    #[arg(long, value_name = "string")]
    cgroup_parent: Option<String>,
    /// Further context (name=PATH, name=URL, name=docker-image://IMAGE or name=oci-layout://DIR[:TAG|@DIGEST])
    #[arg(long, value_name = "name=path")]
    build_context: Vec<String>,
    /// Allow privileged steps (security.insecure, network.host, device, device=NAME)
    #[arg(long, value_name = "string", value_delimiter = ',')]
    allow: Vec<String>,
    /// Policy of sources: none is evaluated here (disabled=true)
    #[arg(long, value_name = "string", hide = true)]
    policy: Vec<String>,
    /// Take steps that were made elsewhere (IMAGE, type=registry,ref=IMAGE or type=local,src=PATH)
    #[arg(long, value_name = "cache", value_parser = parse::cache::from)]
    cache_from: Vec<CachePlace>,
    /// Keep steps elsewhere (type=registry,ref=IMAGE, type=local,dest=PATH or type=inline[,mode=max])
    #[arg(long, value_name = "cache", value_parser = parse::cache::to)]
    cache_to: Vec<CacheTarget>,
    /// What is made (type=image|docker|oci|tar|local|registry[,dest=PATH][,name=NAME][,push=true])
    #[arg(short, long, value_name = "string")]
    pub(super) output: Vec<String>,
    /// Push the image when it is built
    #[arg(long)]
    pub(super) push: bool,
    /// Keep the image in the store (it always is)
    #[arg(long)]
    load: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "file")]
    pub(super) iidfile: Option<String>,
    /// Write what was built to a file
    #[arg(long, value_name = "file")]
    pub(super) metadata_file: Option<String>,
    /// How progress is shown (auto, plain, tty, quiet, rawjson)
    #[arg(long, value_name = "string", default_value = "auto", value_parser = Progress::parse)]
    pub(super) progress: Progress,
    /// Print nothing but the image's id
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Check the Dockerfile instead of building
    #[arg(long)]
    check: bool,
    /// Look at the Dockerfile instead of building (build, check, outline, targets; with ,format=json)
    #[arg(long = "call", value_name = "string", default_value = "build", value_parser = Look::parse)]
    call_value: Look,
    /// Attest where the image comes from (true, false, mode=min or mode=max)
    #[arg(long, value_name = "string")]
    pub(super) provenance: Option<String>,
    /// Attest what is in the image: packages of dpkg and apk (true or false)
    #[arg(long, value_name = "string")]
    pub(super) sbom: Option<String>,
    /// Attest something of the image (type=provenance[,mode=max] or type=sbom)
    #[arg(long, value_name = "string")]
    pub(super) attest: Vec<String>,
    /// Remove containers of steps (they always are)
    #[arg(long, hide = true)]
    rm: bool,
    /// Likewise
    #[arg(long, hide = true)]
    force_rm: bool,
    /// What COPY takes from: a directory, a repository (URL.git#REF:DIR), an archive (http://…), or - for standard input
    #[arg(value_name = "PATH")]
    path: String,
}

/// What is done with the Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Call {
    #[default]
    Build,
    Check,
    Outline,
    Targets,
}

/// That, and as what it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Look {
    pub(super) call: Call,
    pub(super) json: bool,
}

impl Look {
    fn parse(text: &str) -> Result<Self, String> {
        let mut fields = text.split(',');
        let call = match fields.next().unwrap_or_default() {
            "build" => Call::Build,
            "check" | "lint" => Call::Check,
            "outline" => Call::Outline,
            "targets" => Call::Targets,
            _ => return Err("expected build, check, outline or targets".to_owned()),
        };
        let mut look = Self { call, json: false };
        for field in fields {
            look.json = match field {
                "format=json" => true,
                "format=text" => false,
                _ => return Err(format!("{field}: expected format=json or format=text")),
            };
        }
        if look.json && look.call == Call::Build {
            return Err("format= is for check, outline and targets".to_owned());
        }
        Ok(look)
    }
}

impl Build {
    /// What `--check` and `--call` together mean.
    pub(super) fn look(&self) -> Look {
        let call = if self.check { Call::Check } else { self.call_value.call };
        Look { call, ..self.call_value }
    }

    /// The request; the context's archive, if it is one, is still to be unpacked.
    pub(super) fn request(&self) -> Result<BuildRequest, Failure> {
        if let Some(address) = self.remote() {
            reachable(address)?;
        }
        if self.path == "-" && self.file.as_deref() == Some("-") {
            return Err(Failure::flag(
                "invalid argument: can't use stdin for both build context and dockerfile",
            ));
        }
        self.refuse_policy()?;
        let allow_insecure = self.allow.iter().any(|what| what == "security.insecure");
        let context = if self.path == "-" || self.remote().is_some() {
            Context::Empty
        } else {
            Context::Directory(PathBuf::from(&self.path))
        };
        let (args, epoch) = self.arguments()?;
        let tags = self
            .tag
            .iter()
            .map(|tag| Reference::parse(tag).map_err(|e| Failure::flag(format!("invalid tag {tag:?}: {e}"))));
        Ok(BuildRequest {
            dockerfile: self.dockerfile()?,
            source: self.remote().map(str::to_owned),
            context,
            tags: tags.collect::<Result<_, _>>()?,
            args,
            target: self.target.clone().filter(|target| !target.is_empty()),
            labels: pairs(&self.label)?,
            output: cata_engine::build::ImageOptions::default(),
            no_cache: self.no_cache,
            no_cache_filter: self.no_cache_filter.clone(),
            pull: self.pull,
            platforms: self.platform.clone(),
            secrets: self.secret.iter().map(|text| secret(text)).collect::<Result<_, _>>()?,
            ssh: self.agents()?,
            isolation: self.isolation.unwrap_or(Isolation::Process),
            network: self.network.clone(),
            extra_hosts: self.add_host.clone(),
            shm_size: self.shm_size,
            ulimits: self.ulimit.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            contexts: self.named_contexts()?,
            allow_insecure,
            allow_devices: self.devices()?,
            epoch,
            store: true,
            cache_from: self.cache_from.clone(),
            cache_to: self.cache_to.clone(),
        })
    }

    /// `--allow`, but for what needs no more than its name.
    fn devices(&self) -> Result<AllowDevices, Failure> {
        let mut devices = AllowDevices::None;
        for what in &self.allow {
            match (what.as_str(), what.strip_prefix("device=")) {
                ("security.insecure" | "network.host", _) => {}
                ("device", _) => devices = AllowDevices::All,
                (_, Some(name)) => match &mut devices {
                    AllowDevices::All => {}
                    AllowDevices::Some(names) => names.push(name.to_owned()),
                    AllowDevices::None => devices = AllowDevices::Some(vec![name.to_owned()]),
                },
                (other, None) => {
                    return Err(Failure::flag(format!("--allow {other} is not known"))
                        .with_hint("security.insecure, network.host, device or device=NAME"));
                }
            }
        }
        Ok(devices)
    }

    /// A policy that nobody evaluates is not passed over in silence.
    fn refuse_policy(&self) -> Result<(), Failure> {
        if self
            .policy
            .iter()
            .any(|text| csv(text).is_ok_and(|fields| fields.iter().any(|f| f == "disabled=true")))
        {
            return Ok(());
        }
        let unevaluated = |what: String| {
            Failure::flag(format!("{what}: policies of builds are not evaluated here"))
                .with_hint("--policy disabled=true builds without")
        };
        if let Some(text) = self.policy.first() {
            return Err(unevaluated(format!("--policy {text}")));
        }
        let file = match self.file.as_deref() {
            Some("-") => return Ok(()),
            Some(file) if is_remote(file) => return Ok(()),
            Some(file) => PathBuf::from(format!("{file}.rego")),
            None if self.path == "-" || self.remote().is_some() => return Ok(()),
            None => Path::new(&self.path).join("Dockerfile.rego"),
        };
        if file.exists() { Err(unevaluated(file.display().to_string())) } else { Ok(()) }
    }

    /// `--ssh`: the agents that are there already.
    fn agents(&self) -> Result<BTreeMap<String, PathBuf>, Failure> {
        let mut agents = BTreeMap::new();
        for text in &self.ssh {
            if let (id, Answering::Agent(path)) = ssh(text)? {
                agents.insert(id, path);
            }
        }
        Ok(agents)
    }

    /// `--ssh`: keys as files.
    pub(super) fn keys(&self) -> Result<Vec<(String, Vec<PathBuf>)>, Failure> {
        let mut keys = Vec::new();
        for text in &self.ssh {
            if let (id, Answering::Keys(files)) = ssh(text)? {
                keys.push((id, files));
            }
        }
        Ok(keys)
    }

    /// `--build-arg`; a name alone takes the caller's variable. `SOURCE_DATE_EPOCH` is taken from there too.
    fn arguments(&self) -> Result<(BTreeMap<String, String>, Option<i64>), Failure> {
        let mut args = BTreeMap::new();
        let environment = |name: &str| std::env::var(name).ok();
        if let Some(epoch) = environment("SOURCE_DATE_EPOCH") {
            args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch);
        }
        for text in &self.build_arg {
            match text.split_once('=') {
                Some(("", _)) => return Err(Failure::flag(format!("invalid build argument {text:?}"))),
                Some((name, value)) => drop(args.insert(name.to_owned(), value.to_owned())),
                None => {
                    if let Some(value) = environment(text) {
                        args.insert(text.clone(), value);
                    }
                }
            }
        }
        let epoch = match args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(text.parse::<i64>().ok().filter(|epoch| *epoch >= 0).ok_or_else(|| {
                Failure::flag(format!("invalid SOURCE_DATE_EPOCH: {text}")).with_hint("seconds since 1970")
            })?),
        };
        Ok((args, epoch))
    }

    /// The Dockerfile's text and its own `.dockerignore`.
    fn dockerfile(&self) -> Result<DockerfileText, Failure> {
        let named = |path: &Path, name: &str| -> Result<DockerfileText, Failure> {
            let text = fs::read_to_string(path).map_err(|e| {
                let failure = Failure::io(format!("failed to read dockerfile: open {}", path.display()), &e);
                match path.parent() {
                    _ if e.kind() != std::io::ErrorKind::NotFound => failure,
                    Some(dir) if !dir.as_os_str().is_empty() && !dir.exists() => {
                        failure.with_hint(format!("there is no directory {}", dir.display()))
                    }
                    _ => failure.with_hint("name another one with -f"),
                }
            })?;
            let ignore = fs::read_to_string(format!("{}.dockerignore", path.display())).ok();
            Ok(DockerfileText { name: name.to_owned(), text, ignore })
        };
        if let Some(text) = self.inline.clone() {
            return Ok(DockerfileText { name: "dockerfile_inline".to_owned(), text, ignore: None });
        }
        match self.file.as_deref() {
            Some("-") => {
                Ok(DockerfileText { name: "Dockerfile".to_owned(), text: standard_input()?, ignore: None })
            }
            Some(address) if is_remote(address) => {
                reachable(address)?;
                if GitSource::is(address) {
                    return Err(Failure::flag(format!("-f {address}: a Dockerfile's address is a file's"))
                        .with_hint("give the repository as the context"));
                }
                Ok(DockerfileText { name: address.to_owned(), text: String::new(), ignore: None })
            }
            // With a context that is still to come, it is in there.
            _ if self.path == "-" || self.remote().is_some() => {
                Ok(DockerfileText { name: "Dockerfile".to_owned(), text: String::new(), ignore: None })
            }
            Some(file) => named(Path::new(file), file),
            None => named(&Path::new(&self.path).join("Dockerfile"), "Dockerfile"),
        }
    }

    /// The context's address, if it is no path.
    pub(super) fn remote(&self) -> Option<&str> {
        Some(self.path.as_str()).filter(|path| is_remote(path))
    }

    /// Whether the Dockerfile comes with the context.
    pub(super) fn dockerfile_is_in_context(&self) -> bool {
        self.file.as_deref() != Some("-") && self.inline.is_none() && self.remote_dockerfile().is_none()
    }

    /// `-f https://…`
    pub(super) fn remote_dockerfile(&self) -> Option<&str> {
        self.file.as_deref().filter(|file| is_remote(file))
    }

    /// The Dockerfile that was fetched by itself.
    pub(super) fn take_lone_dockerfile(
        &self,
        dir: &Path,
        address: &str,
        request: &mut BuildRequest,
    ) -> Result<(), Failure> {
        let text = fs::read_to_string(dir.join("Dockerfile"));
        request.dockerfile.text =
            text.map_err(|e| Failure::io(format!("failed to read dockerfile {address}"), &e))?;
        request.dockerfile.name = address.to_owned();
        Ok(())
    }

    /// `--build-context` with an address, by name.
    pub(super) fn remote_contexts(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.build_context.iter().filter_map(|text| text.split_once('='));
        pairs.filter(|(_, value)| {
            is_remote(value) && ![IMAGE, LAYOUT].iter().any(|start| value.starts_with(start))
        })
    }

    /// `--build-context` with what is here.
    fn named_contexts(&self) -> Result<BTreeMap<String, NamedContext>, Failure> {
        let mut contexts = BTreeMap::new();
        for text in &self.build_context {
            let Some((name, value)) = text.split_once('=') else {
                return Err(Failure::flag(format!("invalid context value: {text}, expected key=value")));
            };
            if let Some(image) = value.strip_prefix(IMAGE) {
                contexts.insert(name.to_owned(), NamedContext::Image(image.to_owned()));
            } else if let Some(layout) = value.strip_prefix(LAYOUT) {
                contexts.insert(name.to_owned(), self::layout(layout));
            } else if value.starts_with("target:") {
                return Err(Failure::flag(format!("--build-context {text}: targets of others are bake's"))
                    .with_hint("name the image that was built: docker-image://IMAGE"));
            } else if is_remote(value) {
                reachable(value)?;
            } else {
                contexts.insert(name.to_owned(), NamedContext::Directory(PathBuf::from(value)));
            }
        }
        Ok(contexts)
    }

    /// `-`: an archive, or nothing but a Dockerfile.
    pub(super) fn archive(&self) -> Result<Option<Stdin>, Failure> {
        if self.path == "-" { Stdin::open().map(Some) } else { Ok(None) }
    }

    /// The Dockerfile of an unpacked context, or the one that came instead of it.
    pub(super) fn take_dockerfile_from(&self, dir: &Path, request: &mut BuildRequest) -> Result<(), Failure> {
        let name = self.file.as_deref().unwrap_or("Dockerfile");
        let path = dir.join(name);
        request.dockerfile.name = name.to_owned();
        // Beneath the context, links or not.
        let inside =
            path.canonicalize().is_ok_and(|real| dir.canonicalize().is_ok_and(|dir| real.starts_with(dir)));
        if !inside {
            return Err(Failure::client(format!(
                "failed to read dockerfile: {name} is not in the build context"
            )));
        }
        request.dockerfile.text = fs::read_to_string(&path)
            .map_err(|e| Failure::io(format!("failed to read dockerfile {name}"), &e))?;
        request.dockerfile.ignore = fs::read_to_string(dir.join(format!("{name}.dockerignore"))).ok();
        Ok(())
    }
}

/// Standard input as an archive; a Dockerfile alone becomes an archive of it.
pub(crate) struct Stdin(Box<dyn Read + Send>);

impl Stdin {
    fn open() -> Result<Self, Failure> {
        let mut start = vec![0; 512];
        let mut filled = 0;
        let mut input = std::io::stdin();
        let failed = |e: std::io::Error| Failure::io("read the build context from stdin", &e);
        while filled < start.len() {
            match input.read(&mut start[filled..]).map_err(failed)? {
                0 => break,
                read => filled += read,
            }
        }
        start.truncate(filled);
        let compressed = start.starts_with(&[0x1f, 0x8b]) || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let tar = start.get(257..262) == Some(b"ustar");
        if compressed || tar {
            return Ok(Self(Box::new(std::io::Cursor::new(start).chain(input))));
        }
        let mut text = start;
        input.take(TEXT_MAX).read_to_end(&mut text).map_err(failed)?;
        Ok(Self(Box::new(std::io::Cursor::new(archive_of("Dockerfile", &text)))))
    }
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

/// A tar of one file.
fn archive_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    let mut field = |at: usize, text: String| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(100, "0000644\0".to_owned());
    field(108, "0000000\0".to_owned());
    field(116, "0000000\0".to_owned());
    field(124, format!("{:011o}\0", content.len()));
    field(136, "00000000000\0".to_owned());
    field(148, " ".repeat(8));
    field(156, "0".to_owned());
    field(257, "ustar\x0000".to_owned());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    // Writing to a Vec cannot fail.
    let _ = (&mut block[148..156]).write_all(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512) + 1024, 0);
    block
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(TEXT_MAX).read_to_string(&mut text);
    read.map_err(|e| Failure::io("read the Dockerfile from stdin", &e))?;
    Ok(text)
}

fn pairs(list: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    list.iter()
        .map(|text| match text.split_once('=').unwrap_or((text, "")) {
            ("", _) => Err(Failure::flag(format!("invalid argument {text:?}: a name is missing"))),
            (name, value) => Ok((name.to_owned(), value.to_owned())),
        })
        .collect()
}

/// `DIR[:TAG|@DIGEST]`.
fn layout(text: &str) -> NamedContext {
    let (dir, which) = match text.split_once('@') {
        Some((dir, digest)) => (dir, Some(digest)),
        None => match text.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((dir, tag)) => (dir, Some(tag)),
            None => (text, None),
        },
    };
    NamedContext::Layout(PathBuf::from(dir), which.map(str::to_owned))
}

/// `id=ID[,src=FILE|,env=NAME]`; an id alone is the file of that name, or the variable.
fn secret(text: &str) -> Result<(String, Secret), Failure> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    let written = csv(text).map_err(|error| Failure::flag(format!("--secret {error}")))?;
    for field in &written {
        let Some((name, value)) = field.split_once('=') else {
            return Err(Failure::flag(format!(
                "invalid field '{field}' of --secret must be a key=value pair"
            )));
        };
        let name = match name {
            "src" => "source",
            other => other,
        };
        if !matches!(name, "id" | "source" | "env" | "type") {
            return Err(Failure::flag(format!("unexpected key '{name}' in --secret"))
                .with_hint("id, src, env or type"));
        }
        fields.insert(name, value);
    }
    let Some(id) = fields.get("id").filter(|id| !id.is_empty()) else {
        return Err(Failure::flag("a --secret needs an id").with_hint("--secret id=NAME,src=FILE"));
    };
    let kind = fields.get("type").copied();
    if kind.is_some_and(|kind| kind != "file" && kind != "env") {
        return Err(Failure::flag(format!("unsupported secret type {:?}", kind.unwrap_or_default())));
    }
    let variable = match (fields.get("env"), fields.get("source"), kind) {
        (Some(name), _, _) => Some(*name),
        (None, source, Some("env")) => Some(source.copied().unwrap_or(id)),
        (None, None, None) if std::env::var_os(id).is_some() => Some(*id),
        _ => None,
    };
    let content = match variable {
        Some(name) => std::env::var_os(name)
            .map(std::ffi::OsString::into_encoded_bytes)
            .ok_or_else(|| Failure::flag(format!("secret {id}: the variable {name} is not set")))?,
        None => {
            let path = fields.get("source").unwrap_or(id);
            let mut content = Vec::new();
            File::open(path)
                .and_then(|file| file.take(500 * 1024 + 1).read_to_end(&mut content))
                .map_err(|e| Failure::io(format!("secret {id}: open {path}"), &e))?;
            if content.len() > 500 * 1024 {
                return Err(Failure::flag(format!("secret {id} is larger than 500 KiB")));
            }
            content
        }
    };
    Ok(((*id).to_owned(), Secret(content)))
}

/// What answers for an id of `--ssh`.
enum Answering {
    /// An agent, by its socket.
    Agent(PathBuf),
    /// Keys, for an agent of this build's.
    Keys(Vec<PathBuf>),
}

/// `default`, `ID`, `ID=SOCKET`, `ID=KEY[,KEY…]`.
fn ssh(text: &str) -> Result<(String, Answering), Failure> {
    use std::os::unix::fs::FileTypeExt as _;
    let environment = || std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
    let (id, paths) = match text.split_once('=') {
        Some((id, paths)) => (id, paths.split(',').map(PathBuf::from).collect::<Vec<_>>()),
        None => (text, environment().into_iter().collect()),
    };
    if paths.is_empty() {
        return Err(Failure::flag(format!("--ssh {text}: SSH_AUTH_SOCK names no agent"))
            .with_hint("start ssh-agent, or give a key: --ssh default=FILE"));
    }
    let mut keys = Vec::new();
    for path in &paths {
        let io = |e: std::io::Error| Failure::io(format!("--ssh {text}: {}", path.display()), &e);
        let metadata = fs::metadata(path).map_err(io)?;
        if metadata.file_type().is_socket() {
            if paths.len() > 1 {
                return Err(Failure::flag(format!("--ssh {text}: an agent's socket stands alone")));
            }
            return Ok((id.to_owned(), Answering::Agent(path.canonicalize().map_err(io)?)));
        }
        if !metadata.is_file() {
            let shown = path.display();
            return Err(Failure::flag(format!("--ssh {text}: {shown} is neither a socket nor a key")));
        }
        keys.push(path.clone());
    }
    Ok((id.to_owned(), Answering::Keys(keys)))
}

/// Addresses that contexts can be fetched from.
fn reachable(address: &str) -> Result<(), Failure> {
    if GitSource::is(address) || address.starts_with("http://") || address.starts_with("https://") {
        return Ok(());
    }
    Err(Failure::flag(format!("contexts of this kind are not supported: {address}"))
        .with_hint("a directory, http://, https:// or a git repository"))
}
