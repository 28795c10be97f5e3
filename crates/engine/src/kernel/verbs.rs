//! `kernel ls`, `inspect`, `use`, `rm`.

use std::fs::{self, File};
use std::io;

use cata_kernel::image::Arch;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Value, json};

use super::{Record, Source};
use crate::engine::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// All kernels by name, and whether each is the one used when none is named.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn kernel_list(&self) -> Result<Vec<(Record, bool)>> {
        let is_default = |record: &Record| {
            let arch = Arch::parse(&record.arch);
            arch.and_then(|arch| super::default_name(&self.paths, arch)).as_ref() == Some(&record.name)
        };
        let list = super::list(&self.paths)?;
        Ok(list.into_iter().map(|record| (record.clone(), is_default(&record))).collect())
    }

    /// One kernel as a document.
    ///
    /// # Errors
    /// [`Error::NoKernel`].
    pub fn kernel_inspect(&self, name: &str) -> Result<Value> {
        let record = super::find(&self.paths, name, None)?;
        let default = super::default_name(&self.paths, record.arch()?).as_ref() == Some(&record.name);
        let dir = super::dir(&self.paths).join(&record.name);
        let source = match &record.source {
            Source::Package { name, version } => json!({ "Package": name, "Version": version }),
            Source::File { path } => json!({ "File": path }),
            Source::Image { id, reference, path } => {
                json!({ "Image": reference, "Id": id, "File": path })
            }
        };
        let drivers: serde_json::Map<String, Value> =
            record.drivers.iter().map(|fact| (fact.name.clone(), json!(fact.offer))).collect();
        Ok(json!({
            "Name": record.name,
            "Release": record.release,
            "Architecture": record.arch,
            "Default": default,
            "Source": source,
            "Created": record.created,
            "Kernel": dir.join(&record.file),
            "Digest": record.digest,
            "Initramfs": dir.join("initramfs"),
            "Size": record.size,
            "Drivers": drivers,
            "Modules": record.modules,
        }))
    }

    /// Makes a kernel the one used when none is named.
    ///
    /// # Errors
    /// [`Error::NoKernel`].
    pub fn kernel_use(&self, name: &str) -> Result<String> {
        let record = super::find(&self.paths, name, None)?;
        let link = super::default_link(&self.paths, record.arch()?);
        let new = super::dir(&self.paths).join(format!("making/{}-default", std::process::id()));
        let made = fs::create_dir_all(super::dir(&self.paths).join("making"))
            .and_then(|()| std::os::unix::fs::symlink(&record.name, &new))
            .and_then(|()| fs::rename(&new, &link));
        made.map_err(Error::file("write", link))?;
        Ok(record.name)
    }

    /// Removes a kernel that nobody runs; its name.
    ///
    /// # Errors
    /// [`Error::NoKernel`]; [`Error::State`] for one in use.
    pub fn kernel_remove(&self, name: &str) -> Result<String> {
        let record = super::find(&self.paths, name, None)?;
        let dir = super::dir(&self.paths).join(&record.name);
        let path = dir.join(&record.file);
        let kernel = match File::open(&path) {
            Ok(kernel) => Some(kernel),
            // Somebody damaged it: then nobody runs it, and it must be possible to remove it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file("open", path)(error)),
        };
        if let Some(kernel) = &kernel {
            match flock(kernel, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(Error::State {
                        what: format!("the kernel {} is in use by a running VM", record.name),
                        hint: Some("stop the VM first: `cata ps` lists them".to_owned()),
                    });
                }
                Err(errno) => return Err(Error::file("lock", path)(errno)),
            }
        }
        let removed = self.paths.removed();
        fs::create_dir_all(&removed).map_err(Error::file("create", &removed))?;
        let away = removed.join(format!("kernel-{}-{}", record.name, std::process::id()));
        fs::rename(&dir, &away).map_err(Error::file("remove", &dir))?;
        let arch = record.arch()?;
        if super::default_name(&self.paths, arch).as_ref() == Some(&record.name) {
            let _ = fs::remove_file(super::default_link(&self.paths, arch));
        }
        fs::remove_dir_all(&away).map_err(Error::file("remove", away))?;
        Ok(record.name)
    }
}
