//! What answers when the guest touches an address that is not memory: devices' registers and a few ports.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use crate::layout;
use crate::virtio::mmio::Transport;

/// All that is not memory.
pub(crate) struct Bus {
    devices: Vec<Mutex<Transport>>,
    serial: Option<Mutex<Serial<Line, NoEvents, File>>>,
}

/// What a write to a port asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    PowerOff,
    Reset,
}

/// The serial port's interrupt line.
struct Line(EventFd);

impl Trigger for Line {
    type E = std::io::Error;

    fn trigger(&self) -> Result<(), std::io::Error> {
        self.0.write(1)
    }
}

impl Bus {
    pub(crate) fn new(devices: Vec<Transport>, serial: Option<(OwnedFd, EventFd)>) -> Bus {
        let serial = serial.map(|(sink, line)| Mutex::new(Serial::new(Line(line), File::from(sink))));
        Bus { devices: devices.into_iter().map(Mutex::new).collect(), serial }
    }

    fn device(&self, address: u64) -> Option<(&Mutex<Transport>, u64)> {
        let offset = address.checked_sub(layout::DEVICES)?;
        let device = self.devices.get(usize::try_from(offset / layout::DEVICE_SIZE).ok()?)?;
        Some((device, offset % layout::DEVICE_SIZE))
    }

    /// Where nothing is, all bits are ones.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        match self.device(address) {
            Some((device, offset)) => {
                device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
            }
            None => data.fill(0xff),
        }
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.device(address) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        }
    }

    fn serial(&self, port: u16) -> Option<(&Mutex<Serial<Line, NoEvents, File>>, u8)> {
        let register = port.checked_sub(layout::PORT_SERIAL).filter(|register| *register < 8)?;
        Some((self.serial.as_ref()?, register as u8))
    }

    pub(crate) fn port_in(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match (self.serial(port), data) {
            (Some((serial, register)), [byte]) => {
                *byte = serial.lock().unwrap_or_else(PoisonError::into_inner).read(register);
            }
            // The keyboard controller has nothing to say and takes commands; the sleep register shows nothing.
            (None, [byte]) if matches!(port, layout::PORT_KEYBOARD | layout::PORT_SLEEP_STATUS) => *byte = 0,
            _ => {}
        }
    }

    pub(crate) fn port_out(&self, port: u16, data: &[u8]) -> Wish {
        if let Some((serial, register)) = self.serial(port) {
            if let [byte] = data {
                // A log that cannot be written is lost; the guest goes on.
                let _ = serial.lock().unwrap_or_else(PoisonError::into_inner).write(register, *byte);
            }
            return Wish::Nothing;
        }
        match (port, data) {
            (layout::PORT_SLEEP, [value]) if value & 0x20 != 0 => Wish::PowerOff,
            (layout::PORT_RESET, _) | (layout::PORT_KEYBOARD, [0xfe]) => Wish::Reset,
            _ => Wish::Nothing,
        }
    }
}
