//! A machine that runs, and the letters that its guest says (`crates/guest/examples/measured.rs`).

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::monitor::{Monitor, Parts};

/// Before each letter, so that a hypervisor's own words are not taken for the guest's.
const MARK: u8 = b'~';
/// How long the next letter may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How much of the end of what was said is shown where it fails.
const SHOWN: usize = 2000;

/// What came on the serial port.
enum Said {
    /// A letter of the guest's, and when it came.
    Letter(u8, Duration),
    /// Anything, for who looks for a reason.
    Text(Vec<u8>),
}

/// A machine; it ends with this.
pub(super) struct Machine {
    child: Child,
    port: Receiver<Said>,
    text: Vec<u8>,
    log: PathBuf,
}

impl Machine {
    /// Starts one.
    pub(super) fn start(monitor: &Monitor, parts: &Parts) -> Result<Self> {
        let log = parts.scratch.join("stderr");
        let stderr = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = monitor.command(parts)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("run {}", monitor.kind.name()))?;
        let mut stdout = child.stdout.take().context("the machine's serial port")?;
        let (sender, port) = channel();
        thread::spawn(move || {
            let (mut marked, mut piece) = (false, [0_u8; 256]);
            while let Ok(length @ 1..) = stdout.read(&mut piece) {
                let at = began.elapsed();
                let marks = |byte: &&u8| std::mem::replace(&mut marked, **byte == MARK);
                let letters = piece[..length].iter().filter(marks);
                let letters: Vec<Said> = letters.map(|letter| Said::Letter(*letter, at)).collect();
                let text = Said::Text(piece[..length].to_vec());
                if std::iter::once(text).chain(letters).any(|said| sender.send(said).is_err()) {
                    return;
                }
            }
        });
        Ok(Self { child, port, text: Vec::new(), log })
    }

    /// When this letter came, since the hypervisor was started.
    pub(super) fn until(&mut self, letter: char) -> Result<Duration> {
        loop {
            match self.port.recv_timeout(PATIENCE) {
                Ok(Said::Letter(said, at)) if char::from(said) == letter => return Ok(at),
                Ok(Said::Letter(b'!', _)) => {
                    // Its reason follows.
                    while let Ok(Said::Text(more)) = self.port.recv_timeout(Duration::from_secs(1)) {
                        self.text.extend(more);
                    }
                    bail!("the guest gave up before `{letter}`\n{}", self.said());
                }
                Ok(Said::Letter(..)) => {}
                Ok(Said::Text(more)) => self.text.extend(more),
                Err(_) => bail!("the guest did not come to `{letter}`\n{}", self.said()),
            }
        }
    }

    /// How long each of these took that ends with a letter, the first one's letter beginning it.
    pub(super) fn steps(&mut self, first: char, letters: &str) -> Result<Vec<f64>> {
        let mut last = self.until(first)?;
        let mut steps = Vec::new();
        for letter in letters.chars() {
            let at = self.until(letter)?;
            steps.push((at - last).as_secs_f64());
            last = at;
        }
        Ok(steps)
    }

    /// The end of what came on the serial port, and of what the hypervisor said.
    fn said(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end =
            |text: &[u8]| String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN)..]).into_owned();
        format!("{}\n{}", end(&self.text), end(&log))
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
