//! The end: what the container held is given back, everybody is told, and the supervisor leaves.

use super::Driver;
use super::reactor::{Interest, Source};
use crate::launch::Undo;
use crate::protocol::{Failure, FailureKind, SOCKET};
use crate::undo;

impl Driver {
    /// What the network has made, in place of what it had: it goes first.
    pub(super) fn undo_network(&mut self, steps: Vec<Undo>) {
        if steps == self.network_undo {
            return;
        }
        self.network_undo = steps;
        self.files.record_undo(&[&self.network_undo[..], &self.undo].concat());
    }

    pub(super) fn start_service(
        &mut self,
        plan: serde_json::Value,
        sockets: Vec<std::os::fd::OwnedFd>,
    ) -> Result<(), Failure> {
        let failed = |message| Failure::new(FailureKind::System, message);
        let service = (self.make_service)(plan, sockets).map_err(failed)?;
        self.reactor
            .add(service.fd(), Source::Service, Interest::Read)
            .map_err(|error| failed(error.to_string()))?;
        self.service = Some(service);
        Ok(())
    }

    /// Cheap things that a successor may need at once.
    pub(super) fn undo(&mut self) {
        // Sockets hold ports: they go before anybody is told that the ports are free.
        self.held.clear();
        let mut steps = std::mem::take(&mut self.network_undo);
        steps.append(&mut self.undo);
        for error in undo::perform(&steps) {
            self.complain(&chain(&error));
        }
    }

    /// Everything else.
    pub(super) fn leave(&mut self) {
        if let Some(service) = self.service.take() {
            self.reactor.remove(service.fd());
        }
        // The kernel takes a namespace's links down with its last user.
        self.network = None;
        self.users = None;
        self.links = super::vm::Links::default();
        if let Err(message) = self.cage.remove() {
            self.complain(&message);
        }
        // Nobody new; a successor may bind its own socket.
        self.listener = None;
        let _ = rustix::fs::unlinkat(&self.dir, SOCKET, rustix::fs::AtFlags::empty());
        for error in undo::perform(&self.files.take_late()) {
            self.complain(&chain(&error));
        }
        self.files.forget_undo();
        if self.auto_remove
            && let Err(error) = undo::remove_tree(&self.files.state_dir)
            && error != rustix::io::Errno::NOENT
        {
            self.complain(&format!("cannot remove the live state: {error}"));
        }
        // Whoever hears the farewell may start a successor at once.
        self.lock = None;
        self.say_farewell();
        self.leaving = true;
    }
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
