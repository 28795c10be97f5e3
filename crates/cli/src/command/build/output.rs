//! `--output`, `--push`, `--load`, `--annotation`: where the result goes, and how it is written.

use cata_engine::build::{
    Algorithm, Annotation, AnnotationOf, BuildRequest, Built, ImageOptions, ProvenanceMode,
};
use cata_engine::dockerfile::metadata::csv;
use cata_spec::Reference;

use super::options::Build;
use super::screen::Screen;
use crate::render::error::Failure;
use crate::session::{self, Session};

/// Where the result goes.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// Into the store, as an image.
    pub(super) store: bool,
    /// How the image is written.
    pub(super) image: ImageOptions,
    /// `name=`: names besides those of `-t`.
    pub(super) names: Vec<Reference>,
    push: bool,
    files: Vec<FileOutput>,
    /// `type=cacheonly`: steps are made, and nothing of them.
    cache_only: bool,
}

#[derive(Debug)]
struct FileOutput {
    kind: FileKind,
    /// `-`: standard output.
    destination: String,
    /// `platform-split`: a directory for each platform.
    split: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// A directory of files.
    Local,
    /// A tar of files.
    Tar,
    /// An archive of the image, an OCI layout that `docker load` reads too.
    Image,
}

/// Reads the flags.
pub(super) fn plan(build: &Build) -> Result<Outputs, Failure> {
    let mut outputs = Outputs { store: true, push: build.push, ..Outputs::default() };
    let mut images: Vec<ImageOptions> = Vec::new();
    for text in &build.output {
        images.extend(one(text, &mut outputs)?);
    }
    // The image is made once: what one output says of it holds for all.
    images.dedup();
    if images.len() > 1 {
        return Err(Failure::flag("outputs with images that differ (compression, media types, annotations) are not supported in one build")
            .with_hint("build once for each: the steps are cached"));
    }
    outputs.image = images.pop().unwrap_or_default();
    for text in &build.annotation {
        outputs.image.annotations.extend(annotation(text)?);
    }
    attestations(build, &mut outputs.image)?;
    if outputs.push && build.tag.is_empty() && outputs.names.is_empty() {
        return Err(
            Failure::flag("tag is needed when pushing to a registry").with_hint("-t registry/name:tag")
        );
    }
    // Files alone need no image.
    let files_only =
        outputs.files.iter().all(|file| file.kind != FileKind::Image) && !outputs.files.is_empty();
    if outputs.cache_only && (outputs.push || !outputs.files.is_empty() || build.output.len() > 1) {
        return Err(Failure::flag("--output type=cacheonly: something else is to be made as well")
            .with_hint("any other output keeps the steps too"));
    }
    if outputs.cache_only {
        outputs.store = false;
    } else if files_only
        && !outputs.push
        && build.tag.is_empty()
        && !build.output.iter().any(|o| o.contains("type=image"))
    {
        if outputs.image.is_attested() {
            return Err(Failure::flag("attestations are of an image, and files are no image")
                .with_hint("-o type=oci,dest=FILE, or a tag"));
        }
        outputs.store = false;
    }
    Ok(outputs)
}

/// `--attest`, and its short forms `--provenance` and `--sbom`.
fn attestations(build: &Build, image: &mut ImageOptions) -> Result<(), Failure> {
    let mut asked: Vec<(String, String)> = Vec::new();
    for text in &build.attest {
        let fields = csv(text);
        let (kinds, rest): (Vec<String>, Vec<String>) =
            fields.into_iter().partition(|field| field.starts_with("type="));
        match kinds.as_slice() {
            [kind] => asked.push((kind["type=".len()..].to_owned(), rest.join(","))),
            _ => return Err(Failure::flag(format!("--attest {text}: one type= is needed"))),
        }
    }
    for (kind, text) in [("provenance", &build.provenance), ("sbom", &build.sbom)] {
        asked.extend(text.clone().map(|text| (kind.to_owned(), text)));
    }
    for (kind, text) in asked {
        let mut disabled = false;
        let mut mode = ProvenanceMode::Min;
        for field in csv(&text).iter().filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, "true"));
            match (kind.as_str(), name, value) {
                (_, "true", _) | (_, "disabled", "false") => {}
                (_, "false", _) | (_, "disabled", "true") => disabled = true,
                ("provenance", "mode", "min") => mode = ProvenanceMode::Min,
                ("provenance", "mode", "max") => mode = ProvenanceMode::Max,
                ("provenance", "version", "v0.2") | ("provenance", "inline-only", "false") => {}
                ("provenance", "builder-id", id) => image.builder_id = id.to_owned(),
                _ => return Err(Failure::flag(format!("--attest type={kind}: `{field}` is not supported"))),
            }
        }
        match kind.as_str() {
            "provenance" => image.provenance = (!disabled).then_some(mode),
            "sbom" => image.sbom = !disabled,
            _ => {
                return Err(Failure::flag(format!("--attest type={kind} is not supported"))
                    .with_hint("provenance or sbom"));
            }
        }
    }
    Ok(())
}

/// `[type[platform],…:]name=value`.
fn annotation(text: &str) -> Result<Vec<Annotation>, Failure> {
    let wrong = |why: &str| Failure::flag(format!("invalid annotation {text:?}: {why}"));
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("expected name=value"))?;
    let (kinds, key) = name.rsplit_once(':').unwrap_or(("manifest", name));
    if key.is_empty() {
        return Err(wrong("a name is missing"));
    }
    let mut found = Vec::new();
    for kind in kinds.split(',') {
        let (kind, platform) = match kind.split_once('[') {
            Some((kind, platform)) => {
                (kind, Some(platform.strip_suffix(']').ok_or_else(|| wrong("a ] is missing"))?))
            }
            None => (kind, None),
        };
        found.push(note(kind, platform, key, value).ok_or_else(|| {
            wrong(&format!("{kind} is not supported")).with_hint("manifest, index or manifest-descriptor")
        })?);
    }
    Ok(found)
}

fn note(kind: &str, platform: Option<&str>, key: &str, value: &str) -> Option<Annotation> {
    let of = match kind {
        "manifest" => AnnotationOf::Manifest,
        "index" if platform.is_none() => AnnotationOf::Index,
        "manifest-descriptor" => AnnotationOf::ManifestDescriptor,
        _ => return None,
    };
    Some(Annotation {
        of,
        platform: platform.map(str::to_owned),
        key: key.to_owned(),
        value: value.to_owned(),
    })
}

fn truth(text: &str, field: &str, value: &str) -> Result<bool, Failure> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Failure::flag(format!("--output {text}: {field}={value} is neither true nor false"))),
    }
}

/// What is said of the compression.
#[derive(Default)]
struct Compression {
    kind: Option<String>,
    level: Option<i32>,
}

impl Compression {
    fn read(&self, text: &str) -> Result<Option<Algorithm>, Failure> {
        let refuse = |what: String| Failure::flag(format!("--output {text}: {what}"));
        let algorithm = match self.kind.as_deref() {
            None if self.level.is_none() => return Ok(None),
            None | Some("gzip") => match self.level.unwrap_or(4) {
                level @ 0..=9 => Algorithm::Gzip(level.unsigned_abs()),
                level => return Err(refuse(format!("gzip has no compression level {level}: 0 to 9"))),
            },
            Some("zstd") => match self.level.unwrap_or(3) {
                level @ 1..=22 => Algorithm::Zstd(level),
                level => return Err(refuse(format!("zstd has no compression level {level}: 1 to 22"))),
            },
            Some("uncompressed") if self.level.is_some() => {
                return Err(refuse("what is not compressed has no level".to_owned()));
            }
            Some("uncompressed") => Algorithm::Plain,
            Some(other) => {
                return Err(refuse(format!("compression {other} is not supported"))
                    .with_hint("gzip, zstd or uncompressed"));
            }
        };
        Ok(Some(algorithm))
    }
}

/// What an output says of the image, if it says anything.
fn one(text: &str, outputs: &mut Outputs) -> Result<Option<ImageOptions>, Failure> {
    let mut kind = None;
    let mut destination = None;
    let mut split = None;
    let mut image = ImageOptions::default();
    let mut compression = Compression::default();
    // A path alone is a directory, `-` a tar on standard output.
    if !text.contains('=') {
        let kind = if text == "-" { FileKind::Tar } else { FileKind::Local };
        outputs.files.push(FileOutput { kind, destination: text.to_owned(), split: None });
        return Ok(None);
    }
    for field in csv(text) {
        let refused = || Failure::flag(format!("--output {text}: `{field}` is not supported"));
        let (name, value) = field.split_once('=').ok_or_else(refused)?;
        let yes = || truth(text, name, value);
        match name {
            "type" => kind = Some(value.to_owned()),
            "dest" => destination = Some(value.to_owned()),
            "push" => outputs.push |= yes()?,
            "platform-split" => split = Some(yes()?),
            "name" => {
                for name in value.split(',').filter(|name| !name.is_empty()) {
                    let parsed = Reference::parse(name)
                        .map_err(|e| Failure::flag(format!("--output {text}: name {name:?}: {e}")))?;
                    outputs.names.push(parsed);
                }
            }
            "compression" => compression.kind = Some(value.to_owned()),
            "compression-level" => {
                let level = value.parse().map_err(|_| Failure::flag(format!("--output {text}: {field}")))?;
                compression.level = Some(level);
            }
            "force-compression" => image.force_compression = yes()?,
            "oci-mediatypes" => image.docker_types = !yes()?,
            "rewrite-timestamp" => image.rewrite_timestamp = Some(yes()?),
            // What is always so.
            "tar" | "store" | "unpack" if yes()? => {}
            _ => image.annotations.push(field_annotation(name, value).ok_or_else(refused)?),
        }
    }
    image.compression = compression.read(text)?;
    if image.force_compression && image.compression.is_none() {
        return Err(Failure::flag(format!("--output {text}: force-compression needs a compression")));
    }
    let needs = |destination: Option<String>| {
        destination
            .filter(|d| !d.is_empty())
            .ok_or_else(|| Failure::flag(format!("--output {text} needs dest=PATH")))
    };
    let file = |kind, destination| FileOutput { kind, destination, split };
    let files = matches!(kind.as_deref(), Some("tar" | "local"));
    if files && image != ImageOptions::default() {
        return Err(Failure::flag(format!(
            "--output {text}: files have no layers, media types or annotations"
        )));
    }
    match kind.as_deref() {
        Some("image") => {}
        Some("cacheonly") => outputs.cache_only = true,
        Some("registry") => outputs.push = true,
        // Into the store: this engine is where Docker's would be.
        Some("docker") if destination.is_none() => {}
        Some("docker" | "oci") => {
            let destination = destination.unwrap_or_else(|| "-".to_owned());
            outputs.files.push(file(FileKind::Image, destination));
        }
        Some("tar") => {
            let destination = destination.unwrap_or_else(|| "-".to_owned());
            outputs.files.push(file(FileKind::Tar, destination));
        }
        Some("local") => outputs.files.push(file(FileKind::Local, needs(destination)?)),
        Some(other) => {
            return Err(Failure::flag(format!("--output type={other} is not supported"))
                .with_hint("image, docker, oci, tar, local, registry or cacheonly"));
        }
        None => return Err(Failure::flag(format!("type is required for output {text:?}"))),
    }
    Ok((!files).then_some(image))
}

/// `annotation.KEY`, `annotation-index.KEY`, `annotation-manifest[os/arch].KEY`.
fn field_annotation(name: &str, value: &str) -> Option<Annotation> {
    let rest = name.strip_prefix("annotation")?;
    // The platform may have dots in it, the kind has none.
    let dot = match rest.find("].") {
        Some(end) => end + 1,
        None => rest.find('.')?,
    };
    let (kind, key) = (rest.get(..dot)?, rest.get(dot + 1..).filter(|key| !key.is_empty())?);
    let kind =
        if let Some(kind) = kind.strip_prefix('-') { kind.to_owned() } else { format!("manifest{kind}") };
    match kind.split_once('[') {
        Some((kind, platform)) => note(kind, Some(platform.strip_suffix(']')?), key, value),
        None => note(&kind, None, key, value),
    }
}

/// Writes what was built.
pub(super) fn write(
    session: &Session,
    outputs: &Outputs,
    request: &BuildRequest,
    built: &Built,
    _screen: &Screen,
) -> Result<(), Failure> {
    let engine = session.engine()?;
    for file in &outputs.files {
        match file.kind {
            FileKind::Local => {
                engine.build_files(built, std::path::Path::new(&file.destination), file.split)?;
            }
            FileKind::Tar => {
                engine.build_tar(built, &mut *target(&file.destination)?, file.split)?;
            }
            FileKind::Image => {
                let names: Vec<String> = match (&built.image, request.tags.as_slice()) {
                    (Some(image), []) => vec![image.digest().to_string()],
                    (_, tags) => tags.iter().map(ToString::to_string).collect(),
                };
                engine.image_save(&names, None, &mut *target(&file.destination)?)?;
            }
        }
    }
    if outputs.push {
        for tag in &request.tags {
            session::note(format!("pushing {}", tag.familiar()));
            let pushed = if request.output.compression.is_some() {
                engine.image_push_as_it_is(&tag.to_string(), &cata_engine::images::Silent)?
            } else {
                engine.image_push(&tag.to_string(), None, &cata_engine::images::Silent)?
            };
            session::note(format!(
                "pushed {}: digest: {} size: {}",
                tag.familiar(),
                pushed.digest,
                pushed.size
            ));
        }
    }
    Ok(())
}

fn target(destination: &str) -> Result<Box<dyn std::io::Write>, Failure> {
    if destination == "-" {
        return Ok(Box::new(std::io::stdout()));
    }
    let file =
        std::fs::File::create(destination).map_err(|e| Failure::io(format!("create {destination}"), &e))?;
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ImageOptions, String> {
        let mut outputs = Outputs::default();
        one(text, &mut outputs).map(Option::unwrap_or_default).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn compressions_are_read_and_those_that_are_not_here_refused() {
        assert_eq!(read("type=oci,dest=x").unwrap().compression, None);
        assert_eq!(read("type=oci,dest=x,compression=zstd").unwrap().compression, Some(Algorithm::ZSTD));
        let level = read("type=image,compression=zstd,compression-level=19,force-compression=true").unwrap();
        assert_eq!((level.compression, level.force_compression), (Some(Algorithm::Zstd(19)), true));
        assert_eq!(read("type=image,compression=gzip").unwrap().compression, Some(Algorithm::GZIP));
        assert_eq!(read("type=image,compression=uncompressed").unwrap().compression, Some(Algorithm::Plain));
        assert!(read("type=image,compression=estargz").unwrap_err().contains("estargz is not supported"));
        assert!(read("type=image,compression=gzip,compression-level=10").is_err());
        assert!(read("type=image,compression=uncompressed,compression-level=1").is_err());
        assert!(read("type=image,force-compression=true").is_err());
        assert!(read("type=local,dest=x,compression=gzip").is_err());
        assert!(read("type=image,whatever=1").unwrap_err().contains("whatever=1"));
        assert!(read("type=image,oci-mediatypes=false").unwrap().docker_types);
    }

    #[test]
    fn annotations_say_what_they_are_of() {
        let of = |text: &str| {
            let notes = annotation(text).map_err(|failure| format!("{failure:?}"))?;
            let texts =
                notes.into_iter().map(|n| format!("{:?} {:?} {}={}", n.of, n.platform, n.key, n.value));
            Ok::<_, String>(texts.collect::<Vec<_>>().join("; "))
        };
        assert_eq!(of("a.b=c=d").unwrap(), "Manifest None a.b=c=d");
        assert_eq!(
            of("index,manifest[linux/amd64]:a=b").unwrap(),
            "Index None a=b; Manifest Some(\"linux/amd64\") a=b"
        );
        for wrong in ["a", "=b", "index:=b", "index-descriptor:a=b", "manifest[linux:a=b"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        let notes =
            read("type=image,annotation.a.b=c,annotation-index.d=e,annotation-manifest[linux/arm/v7].f.g=h");
        let notes: Vec<String> = notes.unwrap().annotations.iter().map(|n| n.key.clone()).collect();
        assert_eq!(notes, ["a.b", "d", "f.g"]);
        assert_eq!(csv("type=image,\"name=a,b\",push=true"), ["type=image", "name=a,b", "push=true"]);
    }
}
