//! Whether KVM can run a stock kernel here, found out by running a few instructions of one.
//!
//! There are hosts whose `/dev/kvm` makes machines and then emulates their kernels instruction by instruction,
//! until it meets one that it does not know. Capabilities do not tell. So a guest of a dozen instructions is
//! run in long mode, with the two that such emulations lack: `cmpxchg16b` and `xrstor`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use kvm_ioctls::{VcpuExit, VcpuFd};
use serde::{Deserialize, Serialize};
use vmm_sys_util::signal::Killable;

use crate::boot::{Entry, cpu};
use crate::error::MachineError;
use crate::kvm::{signal, vm::Vm};
use crate::memory::Ram;

/// What KVM is good for here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kvm", content = "reason")]
pub enum Answer {
    /// A stock kernel runs.
    Usable,
    /// There is no such device.
    Missing,
    /// There is one, and this process may not open it.
    NotPermitted,
    /// It opens, and a stock kernel would not run.
    Incomplete(String),
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Usable => f.write_str("usable"),
            Answer::Missing => f.write_str("missing: there is no /dev/kvm"),
            Answer::NotPermitted => f.write_str("not permitted: /dev/kvm may not be opened by this user"),
            Answer::Incomplete(reason) => write!(f, "incomplete: {reason}"),
        }
    }
}

/// Where the guest's code is.
const CODE: u64 = 0x1_0000;
/// Sixteen bytes to exchange, and a processor state to restore, all zeroes.
const DATA: u64 = 0x1_1000;
/// The port it says so at, and what it says.
const DONE: (u16, u8) = (0x10, 0x5a);
/// A guest of a dozen instructions that has not come out by then will not.
const PATIENCE: Duration = Duration::from_secs(10);

/// The guest, in long mode, the address of its data in `rsi`.
const GUEST: [u8; 41] = [
    0xbe, 0x00, 0x10, 0x01, 0x00, // mov esi, DATA
    0x31, 0xc0, // xor eax, eax
    0x31, 0xd2, // xor edx, edx
    0x31, 0xc9, // xor ecx, ecx
    0xbb, 0x01, 0x00, 0x00, 0x00, // mov ebx, 1
    0xf0, 0x48, 0x0f, 0xc7, 0x0e, // lock cmpxchg16b [rsi]
    0x75, 0x0f, // jnz to the end
    0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1: the state of the x87 unit
    0x31, 0xd2, // xor edx, edx
    0x0f, 0xae, 0x6e, 0x40, // xrstor [rsi + 64]
    0xb0, 0x5a, // mov al, DONE
    0xe6, 0x10, // out DONE, al
    0xf4, // hlt
    0xeb, 0xfd, // jmp back to it
];

/// Asks the KVM at this path, usually `/dev/kvm`.
pub fn probe(path: &Path) -> Answer {
    match File::options().read(true).write(true).open(path) {
        Ok(file) => ask(file.into()),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Answer::Missing,
            io::ErrorKind::PermissionDenied => Answer::NotPermitted,
            // A device node behind which there is no driver.
            _ if error.raw_os_error() == Some(libc::ENODEV) || error.raw_os_error() == Some(libc::ENXIO) => {
                Answer::Missing
            }
            _ => Answer::Incomplete(format!("{} cannot be opened: {error}", path.display())),
        },
    }
}

/// Asks an open KVM.
pub fn ask(kvm: OwnedFd) -> Answer {
    match try_out(kvm) {
        Ok(()) => Answer::Usable,
        Err(reason) => Answer::Incomplete(reason),
    }
}

fn try_out(kvm: OwnedFd) -> Result<(), String> {
    let ram = Arc::new(Ram::new(1 << 20).map_err(|e| format!("no guest memory: {e}"))?);
    let vm = Vm::new(kvm, ram.clone(), 1).map_err(|e| describe(&e))?;
    let vcpu = guest(&vm, &ram).map_err(|e| describe(&e))?;
    signal::block().map_err(|e| e.to_string())?;
    let (tell, told) = channel();
    let thread = std::thread::Builder::new()
        .name("probe".into())
        .spawn(move || {
            let _ = tell.send(signal::let_through(&vcpu).map_err(|e| e.to_string()).and_then(|()| run(vcpu)));
        })
        .map_err(|e| e.to_string())?;
    let answer = told.recv_timeout(PATIENCE);
    if matches!(answer, Err(RecvTimeoutError::Timeout)) {
        let _ = thread.kill(signal::number());
    }
    let _ = thread.join();
    answer.unwrap_or_else(|_| Err("a guest of a dozen instructions does not come to its end".into()))
}

fn describe(error: &MachineError) -> String {
    match error {
        MachineError::Kvm { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

/// A processor in long mode, at the guest's first instruction.
fn guest(vm: &Vm, ram: &Ram) -> Result<VcpuFd, MachineError> {
    cpu::write_tables(ram);
    ram.write(CODE, &GUEST);
    ram.write(DATA, &[0; 1024]);
    let vcpu = vm.vcpu(0)?;
    cpu::set_up(&vcpu, vm.cpuid(), vm.deadline_timer(), (0, 1), Entry::Linux64(CODE))?;
    let has_xsave = vm.cpuid().as_slice().iter().any(|leaf| leaf.function == 1 && leaf.ecx & 1 << 26 != 0);
    if !has_xsave {
        return Err(MachineError::Lacking("xsave, which stock kernels use"));
    }
    let mut special = vcpu.get_sregs().map_err(MachineError::kvm("read a processor's registers"))?;
    let (extended_state, sse) = (1 << 18, 1 << 9);
    special.cr4 |= extended_state | sse;
    vcpu.set_sregs(&special).map_err(MachineError::kvm("set a processor's special registers"))?;
    Ok(vcpu)
}

fn run(mut vcpu: VcpuFd) -> Result<(), String> {
    loop {
        let exit = match vcpu.run() {
            Ok(exit) => exit,
            Err(error) if error.errno() == libc::EAGAIN => continue,
            Err(error) => return Err(format!("a processor does not run: {error}")),
        };
        return match exit {
            VcpuExit::IoOut(port, &[value]) if (port, value) == DONE => Ok(()),
            VcpuExit::InternalError => {
                Err("it emulates guests and does not know the instructions of a stock kernel (cmpxchg16b, xrstor)".into())
            }
            VcpuExit::Shutdown => Err("instructions of a stock kernel (cmpxchg16b, xrstor) fault in its guests".into()),
            other => Err(format!("a guest of a dozen instructions ended with {other:?}")),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_where_the_code_says() {
        assert_eq!(GUEST[1..5], (DATA as u32).to_le_bytes());
        assert_eq!((GUEST[35], GUEST[37]), (DONE.1, DONE.0 as u8));
    }

    #[test]
    fn absent_and_foreign_devices_are_told_apart() {
        assert_eq!(probe(Path::new("/nowhere/kvm")), Answer::Missing);
        assert!(matches!(probe(Path::new("/dev/null")), Answer::Incomplete(_)));
    }

    #[test]
    fn answer_names_its_reason_in_a_document() {
        let text = serde_json::to_string(&Answer::Incomplete("why".into())).unwrap();
        assert_eq!(text, r#"{"kvm":"incomplete","reason":"why"}"#);
    }

    #[test]
    fn whatever_kvm_is_here_there_is_an_answer() {
        let answer = probe(Path::new("/dev/kvm"));
        assert!(!answer.to_string().is_empty());
    }
}
