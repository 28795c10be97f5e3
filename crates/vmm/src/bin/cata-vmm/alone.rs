//! Giving up what is not needed any more, before the first byte of the guest is read.

use rustix::thread::set_no_new_privs;

use crate::Refusal;
use crate::child::become_user;

/// Another user without groups or capabilities, for good.
pub(crate) fn give_up_rights(uid: u32) -> Result<(), Refusal> {
    become_user(uid).map_err(Refusal::at(format_args!("become user {uid}")))?;
    // The change of ids has cancelled it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(Refusal::at("die with the supervisor"))?;
    set_no_new_privs(true).map_err(Refusal::at("give up new rights"))
}
