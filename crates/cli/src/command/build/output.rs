//! `--output`, `--push`, `--load`: where the result goes.

use cata_engine::build::{BuildRequest, Built};

use super::options::Build;
use super::screen::Screen;
use crate::render::error::Failure;
use crate::session::{self, Session};

/// Where the result goes.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    /// Into the store, as an image.
    pub(super) store: bool,
    push: bool,
    files: Vec<FileOutput>,
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
    let mut outputs = Outputs { store: true, push: build.push, files: Vec::new() };
    for text in &build.output {
        one(text, &mut outputs)?;
    }
    if outputs.push && build.tag.is_empty() {
        return Err(
            Failure::flag("tag is needed when pushing to a registry").with_hint("-t registry/name:tag")
        );
    }
    // Files alone need no image.
    let files_only =
        outputs.files.iter().all(|file| file.kind != FileKind::Image) && !outputs.files.is_empty();
    if files_only
        && !outputs.push
        && build.tag.is_empty()
        && !build.output.iter().any(|o| o.contains("type=image"))
    {
        outputs.store = false;
    }
    Ok(outputs)
}

fn one(text: &str, outputs: &mut Outputs) -> Result<(), Failure> {
    let mut kind = None;
    let mut destination = None;
    let mut split = None;
    // A path alone is a directory, `-` a tar on standard output.
    if !text.contains('=') {
        let kind = if text == "-" { FileKind::Tar } else { FileKind::Local };
        outputs.files.push(FileOutput { kind, destination: text.to_owned(), split: None });
        return Ok(());
    }
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("type", value)) => kind = Some(value.to_owned()),
            Some(("dest", value)) => destination = Some(value.to_owned()),
            Some(("push", value)) => outputs.push |= value == "true",
            Some(("platform-split", value)) => split = Some(value == "true"),
            Some(("name", _)) => {
                return Err(
                    Failure::flag(format!("--output {text}: `name` is not supported")).with_hint("use -t")
                );
            }
            _ => return Err(Failure::flag(format!("--output {text}: `{field}` is not supported yet"))),
        }
    }
    let needs = |destination: Option<String>| {
        destination
            .filter(|d| !d.is_empty())
            .ok_or_else(|| Failure::flag(format!("--output {text} needs dest=PATH")))
    };
    let file = |kind, destination| FileOutput { kind, destination, split };
    match kind.as_deref() {
        Some("image") => {}
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
                .with_hint("image, docker, oci, tar, local or registry"));
        }
        None => return Err(Failure::flag(format!("type is required for output {text:?}"))),
    }
    Ok(())
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
            let pushed = engine.image_push(&tag.to_string(), None, &cata_engine::images::Silent)?;
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
