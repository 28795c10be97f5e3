//! Watching over an emulated machine: its end, its time limit, and standstills.
//!
//! QEMU's emulation of nested machines changes the set of a processor's interrupts without the lock that its devices
//! take for that (`interrupt_request` in `helper_vmrun` and `do_vmexit`; later versions do it atomically), so that now
//! and then one that has just arrived is forgotten. The interrupt controller still holds it, and the next one brings
//! it along; but a processor that sleeps, and whose clock it was, has no next one. So who stands still is sent one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// So long without a tick of its processors' time, and it is looked at and nudged. One that only waits does not mind.
const STILL: Duration = Duration::from_secs(2);

/// Nudges have not helped for so long: it is lost.
const LOST: Duration = Duration::from_secs(120);

/// How long QEMU may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Itself,
    Limit,
    Standstill,
}

/// What is known of a machine from outside.
#[derive(Debug)]
pub(super) struct Watch {
    monitor: Monitor,
    /// A port that somebody in the machine reads and forgets.
    nudge: UnixStream,
    /// How often a forgotten interrupt was found.
    found: u32,
    /// What the processor was at when it was last looked at.
    pub(super) state: String,
}

impl Watch {
    pub(super) fn new(monitor: UnixStream, nudge: UnixStream) -> Result<Self> {
        monitor.set_read_timeout(Some(ANSWER)).context("wait for QEMU's monitor")?;
        monitor.set_write_timeout(Some(ANSWER)).context("wait for QEMU's monitor")?;
        nudge.set_nonblocking(true).context("use a socket pair")?;
        Ok(Self {
            monitor: Monitor { socket: BufReader::new(monitor), asked: 0 },
            nudge,
            found: 0,
            state: String::new(),
        })
    }

    /// Waits for the machine's end, or brings it about.
    pub(super) fn wait(&mut self, qemu: &mut Child, limit: u64) -> Result<End> {
        let deadline = (limit > 0).then(|| Instant::now() + Duration::from_secs(limit));
        let (mut used, mut since, mut looked) = (0, Instant::now(), Instant::now());
        let end = loop {
            if qemu.try_wait().context("wait for QEMU")?.is_some() {
                return Ok(End::Itself);
            }
            let now = ticks(qemu.id());
            if now != used {
                (used, since, looked) = (now, Instant::now(), Instant::now());
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break End::Limit;
            }
            if since.elapsed() > LOST {
                break End::Standstill;
            }
            if looked.elapsed() > STILL {
                self.look();
                looked = Instant::now();
            }
            thread::sleep(Duration::from_millis(20));
        };
        let _ = qemu.kill();
        let _ = qemu.wait();
        Ok(end)
    }

    /// Asks what a machine that does nothing is at, says so if it should do something, and sends it an interrupt.
    fn look(&mut self) {
        let apic = self.monitor.ask("info lapic").unwrap_or_default();
        let registers = self.monitor.ask("info registers").unwrap_or_default();
        let waiting = pending(&apic);
        self.state = format!("{registers}\n{apic}");
        if let Some(waiting) = waiting {
            self.found += 1;
            eprintln!("lab: the emulator has forgotten interrupt {waiting} ({} so far): nudged", self.found);
        }
        // Should nobody read, there is enough in it.
        let _ = self.nudge.write(b"\n");
    }
}

/// QEMU's monitor (QMP).
#[derive(Debug)]
struct Monitor {
    socket: BufReader<UnixStream>,
    asked: u64,
}

impl Monitor {
    /// What a command for people answers.
    fn ask(&mut self, command: &str) -> Option<String> {
        if self.asked == 0 {
            self.answer("qmp_capabilities", &json!({}))?;
        }
        let answer = self.answer("human-monitor-command", &json!({ "command-line": command }))?;
        Some(answer.as_str()?.replace('\r', ""))
    }

    fn answer(&mut self, command: &str, arguments: &Value) -> Option<Value> {
        self.asked += 1;
        let question = json!({ "execute": command, "arguments": arguments, "id": self.asked });
        writeln!(self.socket.get_ref(), "{question}").ok()?;
        // Its greeting, events, and answers that were too late come first.
        loop {
            let mut line = String::new();
            if self.socket.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let mut document: Value = serde_json::from_str(&line).ok()?;
            if document.get("id").and_then(Value::as_u64) == Some(self.asked) {
                return document.get_mut("return").map(Value::take);
            }
        }
    }
}

/// The interrupts that a controller holds for its processor (`info lapic`).
fn pending(apic: &str) -> Option<&str> {
    let line = apic.lines().find_map(|line| line.trim().strip_prefix("IRR"))?.trim();
    (!line.is_empty() && !line.contains("none")).then_some(line)
}

/// The time of the emulated processors, in ticks of the kernel's (proc_pid_stat(5), fields 14 and 15). Questions and
/// their answers are another thread's, and do not count.
fn ticks(qemu: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{qemu}/task")).into_iter().flatten().flatten();
    let used = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("stat")).ok()?;
        // `17 (CPU 0/TCG) S 1 …`
        let (name, fields) = text.rsplit_once(')')?;
        let fields = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        name.contains("CPU").then(|| fields.sum::<u64>())
    });
    used.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_tells_what_waits_for_the_processor() {
        let apic =
            |line: &str| format!("dumping local APIC state for CPU 0\n\nISR\t (none)\n{line}\n\nAPR 0x00");
        assert_eq!(pending(&apic("IRR\t 236 ")), Some("236"));
        assert_eq!(pending(&apic("IRR\t (none)")), None);
        assert_eq!(pending(""), None);
    }
}
