//! `create`: from a request to a record. Nothing runs yet.
//!
//! Order, and why: record (durable), volumes, name, then the rename into `containers/`, which is the moment
//! the container exists for others. What a killed maker leaves is swept by [`super::recover`].

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use cata_image::{Image, Progress};
use cata_spec::Name;
use rustix::fs::{FlockOperation, flock};

use crate::cdi;
use crate::container::devices::{find_block, find_device};
use crate::container::{RemoveOptions, accounts, names, ranges};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::image_error;
use crate::kernel;
use crate::ledger::{self, Durability};
use crate::paths::ContainerDir;
use crate::plan::{apparmor, capabilities, config, mounts, namespaces, resources, signal, users, vm};
use crate::record::{ImageFacts, MountKind, MountPoint, Record};
use crate::request::{CreateRequest, Lender, NetworkMode, UserNamespace, Users};
use crate::rootless;
use crate::timing::Timing;
use crate::volume::{self, Hold, Made, Volume, fill};

/// A container that was created.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// Its record.
    pub record: Record,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Creates a container; pulls its image when the policy says so.
    ///
    /// # Errors
    /// Anything that is wrong with the request; [`Error::NameInUse`]; what the image room says.
    pub fn create(
        &self,
        mut request: CreateRequest,
        progress: &dyn Progress,
        timing: &mut Timing,
    ) -> Result<Created> {
        if self.host.rootless {
            rootless::adapt(&mut request)?;
        }
        // The machine is its init's.
        request.privileged |= vm::is_whole(&request);
        self.name_networks(&mut request)?;
        let warnings = self.check(&request)?;
        // Until the record names the image, nothing else keeps a concurrent `rmi` from its layers.
        let _lease = self.image_lease()?;
        let image = self.image_for(&request, progress)?;
        timing.mark("image");
        let mut record = self.plan_record(request, &image)?;
        if vm::is_whole(&record.request) {
            self.kernel_of_image(&record.image)?;
            stop_as_init_wants(&mut record, &image)?;
        }
        timing.mark("plan");
        let record = self.commit(record)?;
        // From here on whoever removes the image sees the record; who looked before may have done it.
        if let Err(error) = self.images.keep(&image) {
            let _ = self.remove(record.id.as_str(), RemoveOptions::default());
            return Err(image_error(error.into()));
        }
        timing.mark("record");
        self.tell_container(&record, "create", &[]);
        Ok(Created { record, warnings })
    }

    /// What can be refused before anything is touched.
    fn check(&self, request: &CreateRequest) -> Result<Vec<String>> {
        if let Some(name) = &request.name
            && let Some(owner) = names::owner(&self.paths, name)?
            && names::is_called(&self.paths, &owner, name)
        {
            return Err(Error::NameInUse { name: name.to_string(), owner: owner.to_string() });
        }
        if request.isolation == cata_sandbox::launch::Isolation::Vm {
            vm::check(request)?;
        } else if request.kernel.is_some() {
            return Err(Error::Invalid("--kernel is a virtual machine's: add --isolation vm".to_owned()));
        }
        if request.auto_remove && request.restart != cata_sandbox::launch::RestartPolicy::No {
            return Err(Error::Invalid(
                "conflicting options: cannot specify both --restart and --rm".to_owned(),
            ));
        }
        namespaces::check(request)?;
        users::check(request, self.host.rootless)?;
        resources::check(&request.resources, &self.host)?;
        capabilities::effective(request.privileged, &request.cap_add, &request.cap_drop)?;
        for device in &request.devices {
            find_device(device)?;
        }
        let _ = cdi::edits(request)?;
        for limit in &request.resources.block {
            find_block(limit)?;
        }
        let mut warnings = Vec::new();
        if matches!(request.network, NetworkMode::Host) && (!request.ports.is_empty() || request.publish_all)
        {
            warnings.push("Published ports are discarded when using host network mode".to_owned());
        }
        if request.security.apparmor.is_some() {
            let _ = apparmor::profile(request, self.apparmor_facts())?;
        }
        if request.security.label.iter().any(|label| label != "disable") {
            return Err(Error::Unsupported {
                what: "SELinux labels are not supported yet".to_owned(),
                hint: "use --security-opt label=disable".to_owned(),
            });
        }
        Ok(warnings)
    }

    fn plan_record(&self, request: CreateRequest, image: &Image) -> Result<Record> {
        let id = names::random_id();
        let defaults = crate::image::defaults(image);
        let config = config::plan(&request, &defaults, &id)?;
        let new_volume =
            || Name::parse(names::random_id().as_str()).expect("64 hexadecimal characters are a name");
        let paths = &self.paths;
        let lent = self.lent(&request.volumes_from)?;
        let mounts = mounts::plan(&request.mounts, lent, &config.volumes, new_volume, |name| {
            volume::files(paths, name)
        })?;
        for mount in &mounts {
            if let MountKind::Bind { create: false } = mount.kind
                && !mount.source.exists()
            {
                return Err(Error::NoMountSource(mount.source.clone()));
            }
        }
        let name = match &request.name {
            Some(name) => name.clone(),
            None => names::random_name(&id, 0),
        };
        let users = self.known_users(&request.userns)?;
        let layers = self.layers_for(image, users.as_ref())?;
        let image = ImageFacts::new(Some(image), &request.image, layers);
        Ok(Record { users, ..Record::new((id, name), request, image, config, mounts) })
    }

    /// What other containers have mounted, but for memory.
    fn lent(&self, lenders: &[Lender]) -> Result<Vec<MountPoint>> {
        let mut lent = Vec::new();
        for lender in lenders {
            lent.extend(mounts::lent(self.find(&lender.container)?.mounts, lender.read_only));
        }
        Ok(lent)
    }

    /// Makes the container real; on failure nothing of it is left.
    ///
    /// It is made in `creating/` under a lock, so that a sweep can tell a maker from what a dead one left.
    pub(crate) fn commit(&self, mut record: Record) -> Result<Record> {
        let making = ContainerDir::new(self.paths.creating().join(record.id.as_str()));
        make_dir(making.path(), 0o710)?;
        let lock = fs::File::open(making.path()).map_err(Error::file("open", making.path()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(Error::file("lock", making.path()))?;
        let made = self.make(&making, &mut record);
        if made.is_err() {
            // The first error is the one to tell; what cannot be removed now is swept later.
            let _ = names::release(&self.paths, &record.name, &record.id);
            let _ = cata_sandbox::undo::perform(&[ranges::release(&self.paths, &record.id)]);
            let _ = fs::remove_dir_all(making.path());
            for name in record.anonymous_volumes() {
                let _ = volume::remove(&self.paths, name);
            }
        }
        made.map(|()| record)
    }

    fn make(&self, making: &ContainerDir, record: &mut Record) -> Result<()> {
        for sub in [making.upper(), making.work(), making.path().join("log")] {
            make_dir(&sub, 0o755)?;
        }
        if let UserNamespace::Auto { size } = record.request.userns {
            self.take_users(record, size)?;
        }
        give_root(record, &making.upper())?;
        let durability = record.durability();
        let hostname = format!("{}\n", record.config.hostname);
        fs::write(making.hostname(), hostname).map_err(Error::file("write", making.hostname()))?;
        give_root(record, &making.hostname())?;
        if self.host.rootless && matches!(record.request.userns, UserNamespace::KeepId { .. }) {
            accounts::write(record, making, rootless::own()?)?;
        }
        ledger::write(&making.record(), record, durability)?;
        // Until the record can be seen, nothing else keeps volumes from being removed.
        let _volumes = self.prepare_mounts(record)?;
        if !record.request.files.is_empty() {
            self.write_files(record, making)?;
        }
        match names::take(&self.paths, &record.name, &record.id) {
            // Made-up names are tried again with a number; asked-for ones are not.
            Err(Error::NameInUse { .. }) if record.request.name.is_none() => {
                record.name = names::random_name(&record.id, 1);
                ledger::write(&making.record(), record, durability)?;
                names::take(&self.paths, &record.name, &record.id)?;
            }
            result => result?,
        }
        let home = self.paths.container(&record.id);
        fs::rename(making.path(), &home).map_err(Error::file("create", &home))?;
        if durability == Durability::Durable {
            let parent = self.paths.containers();
            fs::File::open(&parent).and_then(|dir| dir.sync_all()).map_err(Error::file("sync", parent))?;
        }
        Ok(())
    }

    /// Volumes exist, are filled and are held, sources of `-v` binds exist.
    fn prepare_mounts(&self, record: &Record) -> Result<Vec<Hold>> {
        let mut volumes = Vec::new();
        for mount in &record.mounts {
            match &mount.kind {
                MountKind::Bind { create: true } if !mount.source.exists() => {
                    fs::create_dir_all(&mount.source).map_err(Error::file("create", &mount.source))?;
                }
                MountKind::Volume { name, anonymous, copy } => {
                    volumes.push(self.prepare_volume(record, mount, name, *anonymous, *copy)?);
                }
                MountKind::Bind { .. } | MountKind::Tmpfs => {}
            }
        }
        Ok(volumes)
    }

    fn prepare_volume(
        &self,
        record: &Record,
        mount: &MountPoint,
        name: &Name,
        anonymous: bool,
        copy: bool,
    ) -> Result<Hold> {
        let volume = Volume {
            name: name.clone(),
            created: record.created,
            labels: std::collections::BTreeMap::new(),
            options: std::collections::BTreeMap::new(),
            anonymous,
        };
        let (made, hold) = volume::create(&self.paths, &volume)?;
        if made == Made::Now {
            self.tell_volume(name, "create");
        }
        if made == Made::Before && volume::inspect(&self.paths, name.as_str())?.anonymous {
            let path = volume::shared(&self.paths, name);
            fs::File::create(&path).map_err(Error::file("create", path))?;
        }
        let stranger = |users: &Users| users.differ_on_disk() && users.uid_inside(0).is_none();
        if made == Made::Now && record.users.as_ref().is_some_and(stranger) {
            // The caller's own it would be nobody's inside.
            give_root(record, &mount.source)?;
        }
        if !volume::reaches(&self.paths, name, &mount.source) {
            return Err(Error::Invalid(format!(
                "cannot access path {} of volume {name}: no such directory",
                mount.source.display()
            )));
        }
        if copy {
            fill::from_layers(&record.image.layers, &mount.target, &mount.source)?;
        }
        Ok(hold)
    }
}

/// What asks for a machine's end is not SIGTERM to every init.
fn stop_as_init_wants(record: &mut Record, image: &Image) -> Result<()> {
    let said = record.request.stop_signal.is_some() || image.config.config.stop_signal.is_some();
    if !said && let Some(name) = kernel::stop_signal(&record.image.layers, &record.config.argv[0]) {
        record.config.stop_signal = signal::parse(name)?;
        record.config.stop_signal_name = name.to_owned();
    }
    Ok(())
}

/// Whatever the caller's umask: `upper` is the container's root directory, which everybody in it must enter.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new().mode(mode).create(path).map_err(Error::file("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("set the mode of", path))
}

/// What the engine puts into a container belongs to the container's root, where nothing maps it.
pub(crate) fn give_root(record: &Record, path: &Path) -> Result<()> {
    match record.users.as_ref().filter(|users| users.differ_on_disk()).and_then(Users::root) {
        Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .map_err(Error::file("change the owner of", path)),
        None => Ok(()),
    }
}
