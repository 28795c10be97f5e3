//! Finding and becoming the program.

use std::ffi::CString;
use std::path::Path;

use cata_sys::program;
use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::error::Stage;
use crate::handshake::Failure;
use crate::plan::Process;
use crate::user::Identity;

/// What a shell without a `PATH` looks through.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The plan's environment, with `HOME` from the container's `/etc/passwd` when it is not given.
pub(super) fn environment(process: &Process, identity: &Identity) -> Vec<String> {
    let mut environment = process.env.clone();
    if !environment.iter().any(|variable| variable.starts_with("HOME=")) {
        let home = identity.home.as_deref().filter(|home| !home.is_empty()).unwrap_or("/");
        environment.push(format!("HOME={home}"));
    }
    environment
}

/// The program's path, as the user the process has become may see it.
pub(super) fn find(process: &Process, environment: &[String]) -> Result<String, Failure> {
    let Some(name) = process.argv.first().map(String::as_str) else {
        return Ok(String::new());
    };
    if name.contains('/') {
        return match check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::NOENT) => Err(Failure::NoProgram(name.to_owned())),
            Err(Errno::ACCESS | Errno::PERM) => Err(Failure::NotExecutable(name.to_owned())),
            Err(Errno::ISDIR) => Err(Failure::Directory(name.to_owned())),
            Err(errno) => Err(Failure::at(Stage::Execute, name)(errno)),
        };
    }
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let directories = path.unwrap_or(DEFAULT_PATH).split(':');
    directories
        .map(
            |directory| {
                if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") }
            },
        )
        .find(|candidate| !name.is_empty() && check(candidate).is_ok())
        .ok_or_else(|| Failure::NotInPath(name.to_owned()))
}

fn check(path: &str) -> Result<(), Errno> {
    let stat = rustix::fs::stat(Path::new(path))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        // Before Linux 5.8, or under an old filter: the bits must do.
        Err(Errno::NOSYS) => Ok(()),
        result => result,
    }
}

/// Returns only on failure.
pub(super) fn execute(path: &str, process: &Process, environment: &[String]) -> Failure {
    let strings =
        |list: &[String]| list.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(program), Ok(argv), Ok(environment)) =
        (CString::new(path), strings(&process.argv), strings(environment))
    else {
        return Failure::at(Stage::Execute, path)(Errno::INVAL);
    };
    let subject = process.argv.first().cloned().unwrap_or_default();
    match program::execute(&program, &argv, &environment) {
        // The file was there a moment ago.
        Errno::NOENT => Failure::NoInterpreter(subject),
        Errno::ACCESS | Errno::PERM => Failure::NotExecutable(subject),
        Errno::NOEXEC => Failure::Format(subject),
        errno => Failure::at(Stage::Execute, path)(errno),
    }
}
