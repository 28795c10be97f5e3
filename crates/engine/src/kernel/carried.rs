//! The kernel that an image carries: `--kernel image`. It is taken out of the image once, and kept like any other,
//! under a name made of the image's id.
//!
//! The image's files are looked at by a thread whose root is the image's: no link in it leads anywhere else.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cata_kernel::drivers::{self, Fit};
use cata_kernel::image::{self, Kernel};
use cata_kernel::modules::Tree;
use rustix::thread::UnshareFlags;

use super::make::Making;
use super::{FURTHER, Record, Source};
use crate::container::inside::on_a_thread;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::record::ImageFacts;
use crate::volume::fill;

/// What is said in place of a kernel's name.
pub(crate) const WORD: &str = "image";
/// How such kernels are called, before the image's id.
pub(super) const PREFIX: &str = "image-";
/// So much of an id is told.
const SHORT: usize = 12;
/// Where distributions put a kernel, or a link to the one to be used.
const LINKS: [&str; 4] = ["/boot/vmlinuz", "/vmlinuz", "/boot/Image", "/boot/vmlinux"];
/// What their names begin with where a release follows.
const BEGINNINGS: [&str; 3] = ["vmlinuz-", "Image-", "vmlinux-"];
const MODULES: [&str; 2] = ["/usr/lib/modules", "/lib/modules"];

impl Engine {
    /// The name of the kernel that an image carries, taken out of it unless that was done before.
    ///
    /// # Errors
    /// The image has none, or one that no guest can use.
    pub(crate) fn kernel_of_image(&self, image: &ImageFacts) -> Result<String> {
        let name = name_of(&image.id);
        let dir = super::dir(&self.paths).join(&name);
        if let Ok(Some(Record { source: Source::Image { id, .. }, .. })) = super::read(&dir)
            && id == image.id
            && dir.join(FURTHER).exists()
        {
            return Ok(name);
        }
        self.forget_kernels_of_images();
        let found = within(&image.layers, find).map_err(|error| in_image(image, error))?;
        let found = found.ok_or_else(|| Error::Unsupported {
            what: format!(
                "the image {} carries no kernel: there is no /boot/vmlinuz, /vmlinuz, /boot/vmlinuz-* or \
                 /usr/lib/modules/*/vmlinuz in it",
                image.reference
            ),
            hint: "install one in the image (Debian: linux-image-cloud-amd64), or leave out --kernel image"
                .to_owned(),
        })?;
        let (id, reference) = (image.id.clone(), image.reference.clone());
        let source = Source::Image { id, reference, path: found.path };
        let making = Making::start(self)?;
        self.keep(making, &found.kernel, &found.fit, (source, name)).map(|record| record.name)
    }

    /// Kernels of images that are no more.
    pub(crate) fn forget_kernels_of_images(&self) {
        for record in super::list(&self.paths).unwrap_or_default() {
            if let Source::Image { id, .. } = &record.source
                && self.image(id).is_err_and(|error| error.kind() == Kind::NotFound)
            {
                // One that a machine still runs goes another time.
                let _ = self.kernel_remove(&record.name);
            }
        }
    }
}

/// `sha256:0123456789ab…` → `image-0123456789ab`.
fn name_of(id: &str) -> String {
    let digits = id.split_once(':').map_or(id, |(_, digits)| digits);
    format!("{PREFIX}{}", digits.get(..SHORT).unwrap_or(digits))
}

fn in_image(image: &ImageFacts, error: Error) -> Error {
    match error {
        Error::Kernel(cause) if matches!(cause.kind, Kind::Unsupported | Kind::InvalidArgument) => {
            Error::Unsupported {
                what: format!("the kernel in the image {} is of no use: {cause}", image.reference),
                hint: "put another into the image, or leave out --kernel image".to_owned(),
            }
        }
        other => other,
    }
}

/// Does something where `/` is what these layers are together.
fn within<T: Send>(layers: &[PathBuf], act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let failed = Error::file("look into", layers.first().cloned().unwrap_or_default());
    // Without layers `/` would still be the host's.
    let Some(root) = fill::together(layers)? else {
        return Err(Error::Invalid("the image has no files".to_owned()));
    };
    on_a_thread(|| {
        let entered = cata_sys::namespace::unshare_thread(UnshareFlags::NEWNS)
            .and_then(|()| rustix::process::fchdir(&root))
            .and_then(|()| rustix::process::chroot("."));
        entered.map_err(failed)?;
        act()
    })
}

/// A kernel and where it was.
struct Found {
    path: PathBuf,
    kernel: Kernel,
    fit: Fit,
}

/// The kernel to be booted in `/`, with its modules.
fn find() -> Result<Option<Found>> {
    let Some(path) = place() else { return Ok(None) };
    let kernel = image::open(image::read(&path)?, &path.to_string_lossy())?;
    let release = kernel.version.clone().unwrap_or_default();
    let dirs = MODULES.iter().map(|dir| Path::new(dir).join(&release));
    let dir = dirs.into_iter().find(|dir| !release.is_empty() && dir.is_dir());
    let modules = dir.map(|dir| Tree::open(&dir)).transpose()?;
    let fit = drivers::fit(&kernel, modules.as_ref())?;
    Ok(Some(Found { path, kernel, fit }))
}

fn place() -> Option<PathBuf> {
    if let Some(link) = LINKS.iter().map(Path::new).find(|path| path.is_file()) {
        // The release is in the name of what it leads to.
        return fs::canonicalize(link).ok();
    }
    let names = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut places = BTreeMap::new();
    for name in names("/boot") {
        if let Some(release) = BEGINNINGS.iter().find_map(|beginning| name.strip_prefix(beginning)) {
            places.insert(words(release), Path::new("/boot").join(&name));
        }
    }
    for dir in MODULES {
        for release in names(dir) {
            let path = Path::new(dir).join(&release).join("vmlinuz");
            places.entry(words(&release)).or_insert(path);
        }
    }
    places.into_values().rev().find(|path| path.is_file())
}

/// A release so that a later one is greater: numbers count as numbers.
fn words(release: &str) -> Vec<(u64, String)> {
    let mut words = Vec::new();
    let mut rest = release;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (word, after) = after.split_at(letters);
        words.push((number.parse().unwrap_or(0), word.to_owned()));
        rest = after;
    }
    words
}

/// The signal that asks this program for the machine's end, where it is an init whose signal is known.
pub(crate) fn stop_signal(layers: &[PathBuf], program: &str) -> Option<&'static str> {
    let program = Path::new(program);
    if !program.is_absolute() {
        return None;
    }
    let real = within(layers, || fs::canonicalize(program).map_err(Error::file("find", program))).ok()?;
    match real.file_name()?.to_str()? {
        "systemd" => Some("SIGRTMIN+3"),
        "busybox" if program.ends_with("init") => Some("SIGUSR2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_their_numbers() {
        let mut releases = ["6.12.9+deb12-amd64", "6.1.0-39-amd64", "6.12.57-amd64", "6.1.0-9-amd64", "x"];
        releases.sort_by_key(|release| words(release));
        assert_eq!(releases, ["x", "6.1.0-9-amd64", "6.1.0-39-amd64", "6.12.9+deb12-amd64", "6.12.57-amd64"]);
    }

    #[test]
    fn without_layers_the_host_is_not_looked_at() {
        let looked = within(&[], || -> Result<()> { panic!("at the host's files") });
        assert_eq!(looked.unwrap_err().to_string(), "the image has no files");
    }

    #[test]
    fn names_are_those_of_images() {
        assert_eq!(name_of("sha256:0123456789abcdef"), "image-0123456789ab");
        assert_eq!(name_of("sha256:01"), "image-01");
        super::super::check_name(&name_of("sha256:0123456789abcdef")).unwrap();
    }
}
