//! Starting a program that is to outlive its starter: no shell, no terminal, no descriptor but those given.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

/// First number given to a descriptor in the new program.
pub const FIRST: i32 = 3;

/// `posix_spawn` (a vfork: the caller's memory is not copied) of `program` with these arguments, an empty
/// environment, in a session of its own, `/` as directory, standard streams at `/dev/null`, every signal at
/// its default, and `descriptors` as 3, 4, …; no other descriptor is open in it.
///
/// # Errors
/// Whatever kept the program from being executed.
pub fn spawn(program: &Path, arguments: &[&str], descriptors: &[BorrowedFd<'_>]) -> io::Result<i32> {
    let program = CString::new(program.as_os_str().as_bytes())?;
    let arguments = arguments.iter().map(|a| CString::new(*a)).collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<*mut libc::c_char> = vec![program.as_ptr().cast_mut()];
    argv.extend(arguments.iter().map(|a| a.as_ptr().cast_mut()));
    argv.push(std::ptr::null_mut());
    let environment: [*mut libc::c_char; 1] = [std::ptr::null_mut()];

    // Out of the way first: a source may have the number that is another's target.
    let above = FIRST + i32::try_from(descriptors.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let sources =
        descriptors.iter().map(|fd| fcntl_dupfd_cloexec(fd, above)).collect::<Result<Vec<_>, _>>()?;

    let actions = Actions::new()?;
    for number in 0..FIRST {
        actions.open_null(number)?;
    }
    for (source, number) in sources.iter().zip(FIRST..) {
        actions.duplicate(source.as_raw_fd(), number)?;
    }
    actions.root_directory()?;
    actions.close_from(above)?;
    let attributes = Attributes::new()?;
    let mut pid = 0;
    // SAFETY: every pointer is to a live, initialised object; argv and environment end in null.
    let result = unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const *actions.0,
            &raw const *attributes.0,
            argv.as_ptr(),
            environment.as_ptr(),
        )
    };
    check(result)?;
    Ok(pid)
}

/// The other side: takes the descriptors that [`spawn`] gave this program, in order. They close on exec from
/// here on. Only the first call gets them.
///
/// # Errors
/// `EBADF` when the program was started in another way, `EALREADY` for a second call.
pub fn received<const N: usize>() -> Result<[OwnedFd; N], Errno> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Errno::ALREADY);
    }
    for (number, _) in (FIRST..).zip(0..N) {
        // SAFETY: only used to ask whether it is open; a closed number is an error, not undefined.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    Ok(std::array::from_fn(|at| {
        let number = FIRST + i32::try_from(at).unwrap_or(0);
        // SAFETY: it is open (checked above), was given to this program as its own, and is taken only once.
        unsafe { OwnedFd::from_raw_fd(number) }
    }))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// What the child does before it executes.
struct Actions(Box<libc::posix_spawn_file_actions_t>);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: it is given room for the object and initialises it.
        check(unsafe { libc::posix_spawn_file_actions_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised just above.
        Ok(Self(Box::new(unsafe { raw.assume_init() })))
    }

    fn raw(&self) -> *mut libc::posix_spawn_file_actions_t {
        (&raw const *self.0).cast_mut()
    }

    fn open_null(&self, number: i32) -> io::Result<()> {
        // SAFETY: the object is initialised and the path ends in null; the call copies it.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(self.raw(), number, c"/dev/null".as_ptr(), libc::O_RDWR, 0)
        })
    }

    fn duplicate(&self, source: i32, number: i32) -> io::Result<()> {
        // SAFETY: the object is initialised.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(self.raw(), source, number) })
    }

    fn root_directory(&self) -> io::Result<()> {
        // SAFETY: the object is initialised and the path ends in null; the call copies it.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(self.raw(), c"/".as_ptr()) })
    }

    fn close_from(&self, first: i32) -> io::Result<()> {
        // SAFETY: the object is initialised.
        check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(self.raw(), first) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new` and destroyed only here.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut *self.0) };
    }
}

/// What the child is.
struct Attributes(Box<libc::posix_spawnattr_t>);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: it is given room for the object and initialises it.
        check(unsafe { libc::posix_spawnattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised just above.
        let mut this = Self(Box::new(unsafe { raw.assume_init() }));
        let mut set = MaybeUninit::uninit();
        // SAFETY: it is given room for a set and initialises it.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialised just above.
        let mut set: libc::sigset_t = unsafe { set.assume_init() };
        // SAFETY: both objects are initialised; the call copies the set.
        check(unsafe { libc::posix_spawnattr_setsigmask(&raw mut *this.0, &raw const set) })?;
        // SAFETY: `set` is a valid set.
        unsafe { libc::sigfillset(&raw mut set) };
        // SAFETY: both objects are initialised; the call copies the set.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut *this.0, &raw const set) })?;
        let flags = libc::POSIX_SPAWN_SETSID
            | libc::POSIX_SPAWN_SETSIGMASK as libc::c_short
            | libc::POSIX_SPAWN_SETSIGDEF as libc::c_short;
        // SAFETY: the object is initialised.
        check(unsafe { libc::posix_spawnattr_setflags(&raw mut *this.0, flags) })?;
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new` and destroyed only here.
        unsafe { libc::posix_spawnattr_destroy(&raw mut *self.0) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::*;

    #[test]
    fn program_sees_only_what_it_was_given() {
        let (read, write) = rustix::pipe::pipe().expect("pipe");
        // Without close-on-exec on purpose: the child must not see it.
        let _leak = fcntl_dupfd_cloexec(&read, 50).expect("dup");
        let script =
            "ls /proc/self/fd >&3; pwd >&3; ls -l /proc/self/fd/1 >/dev/null && env | grep -c HOME >&3";
        let pid = spawn(Path::new("/bin/sh"), &["-c", script], &[write.as_fd()]).expect("spawn");
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).expect("read");
        waitpid(Pid::from_raw(pid), WaitOptions::empty()).expect("wait");
        // 0, 1, 2, 3 and the directory that `ls` reads.
        assert_eq!(text, "0\n1\n2\n3\n4\n/\n0\n");
        assert!(spawn(Path::new("/no/such/program"), &[], &[]).is_err());
    }
}
