//! Where images and templates are kept between runs: outside the repository, by the hash of their recipe.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

/// Every image that has a recipe in `images/`.
pub const IMAGES: [&str; 3] = ["busybox", "debian", "postgres"];

/// `$CATA_CACHE`, else `$XDG_CACHE_HOME/catamaran`, else `~/.cache/catamaran`.
///
/// # Errors
/// When none of them can be told, or the directory cannot be made.
pub fn dir() -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let dir = var("CATA_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|base| base.join("catamaran")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/catamaran")))
        .context("neither CATA_CACHE, XDG_CACHE_HOME nor HOME is set: no place to keep images")?;
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// The repository's root.
#[must_use]
pub fn repository() -> &'static Path {
    // This package's folder is a direct child of it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Held while something in the cache is being made; released by dropping it.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as the descriptor")] File);

/// Waits for the lock called `name`.
///
/// # Errors
/// When the lock file cannot be made.
pub fn lock(name: &str) -> Result<Lock> {
    take(name, FlockOperation::LockExclusive)
}

/// The same for those who only read what it guards.
///
/// # Errors
/// When the lock file cannot be made.
pub fn share(name: &str) -> Result<Lock> {
    take(name, FlockOperation::LockShared)
}

fn take(name: &str, how: FlockOperation) -> Result<Lock> {
    let path = dir()?.join(format!("{name}.lock"));
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    rustix::fs::flock(&file, how).with_context(|| format!("lock {}", path.display()))?;
    Ok(Lock(file))
}

/// An image's recipe: a folder beneath `images/`.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The image's name.
    pub name: String,
    folder: PathBuf,
}

impl Recipe {
    /// The recipe of one of [`IMAGES`].
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), folder: repository().join("images").join(name) }
    }

    /// Sixteen hexadecimal digits that change when anything the recipe consists of changes.
    ///
    /// # Errors
    /// When the recipe cannot be read.
    pub fn key(&self) -> Result<String> {
        let mut files = vec![repository().join("images/apt.sh")];
        for entry in fs::read_dir(&self.folder).with_context(|| format!("read {}", self.folder.display()))? {
            files.push(entry?.path());
        }
        files.sort();
        let mut hash = Sha256::new();
        for file in files {
            let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update((content.len() as u64).to_le_bytes());
            hash.update(content);
        }
        Ok(hex(&hash.finalize()[..8]))
    }

    /// Where the image's root file system tar is, or will be.
    ///
    /// # Errors
    /// As [`Recipe::key`] and [`dir`].
    pub fn tar(&self) -> Result<PathBuf> {
        Ok(dir()?.join("images").join(format!("{}-{}.tar", self.name, self.key()?)))
    }

    /// The tar, which must have been made before.
    ///
    /// # Errors
    /// When it is not there, with the command that makes it.
    pub fn made(&self) -> Result<PathBuf> {
        let tar = self.tar()?;
        ensure!(tar.exists(), "the image `{}` has not been made: run `cargo xtask images`", self.name);
        Ok(tar)
    }

    /// Makes the tar unless it is there. Returns its path and whether it was made now.
    ///
    /// # Errors
    /// When the recipe fails, with what it printed.
    pub fn make(&self) -> Result<(PathBuf, bool)> {
        let _lock = lock(&format!("image-{}", self.name))?;
        let tar = self.tar()?;
        if tar.exists() {
            return Ok((tar, false));
        }
        let folder = dir()?.join("images");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let partial = folder.join(format!("{}.partial", self.name));
        // mmdebstrap refuses to overwrite what an interrupted run left.
        let _ = fs::remove_file(&partial);
        let output = Command::new(self.folder.join("build.sh")).arg(&partial).output();
        let output = output.with_context(|| format!("run {}/build.sh", self.folder.display()))?;
        ensure!(
            output.status.success(),
            "the recipe of `{}` failed ({}):\n{}{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        fs::rename(&partial, &tar).with_context(|| format!("rename {}", partial.display()))?;
        self.forget_older(&folder, &tar)?;
        Ok((tar, true))
    }

    /// The arguments of `cata` that turn the tar into an image.
    ///
    /// # Errors
    /// When the recipe cannot be read or the tar has not been made.
    pub fn import_args(&self) -> Result<Vec<OsString>> {
        let changes = self.folder.join("changes");
        let text = fs::read_to_string(&changes).with_context(|| format!("read {}", changes.display()))?;
        let mut args = vec![OsString::from("import")];
        for line in text.lines().filter(|line| !line.is_empty()) {
            args.extend(["--change".into(), line.into()]);
        }
        args.extend([self.made()?.into(), OsString::from(&self.name)]);
        Ok(args)
    }

    /// Tars of earlier recipes only fill the disk.
    fn forget_older(&self, folder: &Path, current: &Path) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path != current && stem.rsplit_once('-').is_some_and(|(name, _)| name == self.name) {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
