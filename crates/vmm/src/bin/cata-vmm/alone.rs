//! Giving up what is not needed any more, before the first byte of the guest is read.

use cata_vmm::jail::{self, Filters, Thread};

use crate::Refusal;

/// Another user without groups, capabilities or files, for good; in a process of one thread.
pub(crate) fn give_up_rights(uid: u32) -> Result<(), Refusal> {
    jail::enter(uid, uid).map_err(|error| refusal(&error))?;
    // The change of ids has cancelled it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(Refusal::at("die with the supervisor"))
}

/// From now on this thread has no system calls but those of who passes bytes on.
pub(crate) fn give_up_calls(filters: &Filters) -> Result<(), Refusal> {
    filters.confine(Thread::Link).map_err(|error| refusal(&error))
}

/// The filters of this process' threads.
pub(crate) fn filters() -> Result<Filters, Refusal> {
    Filters::new().map_err(|error| refusal(&error))
}

fn refusal(error: &jail::JailError) -> Refusal {
    use std::error::Error as _;
    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    Refusal::new(format_args!("{error}{source}"))
}
