//! The disk: requests of a guest on a file. It lives in a worker of its own, since files make their reader wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, FileType};

use super::device::{Active, ConfigSpace, Device};
use super::ring::Chain;
use crate::memory::Ram;

const SECTOR: u64 = 512;
/// The header of each request.
const HEADER: usize = 16;
/// The most pieces of one request: what one `preadv` takes, less header and status.
const PIECES: u32 = 254;
/// The most sectors of one discard or zeroing.
const MOST_SECTORS: u32 = 1 << 22;

mod feature {
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const READ_ONLY: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// What a request ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Ok = 0,
    Error = 1,
    Unsupported = 2,
}

/// The block device.
pub(crate) struct Block {
    file: OwnedFd,
    sectors: u64,
    read_only: bool,
    serial: String,
    config: ConfigSpace,
}

impl Block {
    pub(crate) fn new(file: OwnedFd, read_only: bool, serial: String) -> io::Result<Block> {
        let stat = rustix::fs::fstat(&file)?;
        let bytes = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => stat.st_size as u64,
            FileType::BlockDevice => rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0))?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let sectors = bytes / SECTOR;
        let mut config = vec![0; 60];
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        config[12..16].copy_from_slice(&PIECES.to_le_bytes());
        config[20..24].copy_from_slice(&512_u32.to_le_bytes());
        // Discards, then zeroings: the most sectors, the most ranges, the alignment (or whether holes are made).
        config[36..40].copy_from_slice(&MOST_SECTORS.to_le_bytes());
        config[40..44].copy_from_slice(&1_u32.to_le_bytes());
        config[44..48].copy_from_slice(&8_u32.to_le_bytes());
        config[48..52].copy_from_slice(&MOST_SECTORS.to_le_bytes());
        config[52..56].copy_from_slice(&1_u32.to_le_bytes());
        config[56] = 1;
        Ok(Block { file, sectors, read_only, serial, config: ConfigSpace::new(config, 0..0) })
    }

    /// Performs a request; returns how many bytes were written into the guest's memory.
    fn perform(&self, ram: &Ram, chain: &Chain) -> u32 {
        let writable = chain.writable_len();
        let Some(room) = writable.checked_sub(1) else { return 0 };
        let mut header = [0; HEADER];
        let (status, written) = match ram.gather(&chain.readable, 0, &mut header) {
            HEADER => self.request(ram, chain, header, room),
            _ => (Status::Error, 0),
        };
        ram.scatter(&chain.writable, room, &[status as u8]);
        written as u32 + 1
    }

    fn request(&self, ram: &Ram, chain: &Chain, header: [u8; HEADER], room: usize) -> (Status, usize) {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let result = match u32::from_le_bytes([k0, k1, k2, k3]) {
            0 => self.transfer(sector, room, |done, offset| {
                ram.fill(self.file.as_fd(), &chain.writable, done, room - done, Some(offset))
            }),
            1 if self.read_only => Err(Status::Error),
            1 => {
                let length = chain.readable_len() - HEADER;
                let write = |done: usize, offset| {
                    ram.drain(self.file.as_fd(), &chain.readable, HEADER + done, length - done, Some(offset))
                };
                self.transfer(sector, length, write).map(|_| 0)
            }
            4 => rustix::fs::fdatasync(&self.file).map(|()| 0).map_err(|_| Status::Error),
            8 => {
                let mut id = [0; 20];
                id[..self.serial.len()].copy_from_slice(self.serial.as_bytes());
                Ok(ram.scatter(&chain.writable, 0, &id[..room.min(20)]))
            }
            kind @ (11 | 13) => self.clear(ram, chain, kind == 13),
            _ => Err(Status::Unsupported),
        };
        match result {
            Ok(written) => (Status::Ok, written),
            Err(status) => (status, 0),
        }
    }

    /// Whole sectors within the disk, moved by `step(done, offset)` until all are.
    fn transfer(
        &self,
        sector: u64,
        length: usize,
        mut step: impl FnMut(usize, u64) -> io::Result<usize>,
    ) -> Result<usize, Status> {
        let bytes = length as u64;
        if !bytes.is_multiple_of(SECTOR) || !self.holds(sector, bytes / SECTOR) {
            return Err(Status::Error);
        }
        let mut done = 0;
        while done < length {
            match step(done, sector * SECTOR + done as u64) {
                Ok(0) => return Err(Status::Error),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Status::Error),
            }
        }
        Ok(length)
    }

    fn holds(&self, sector: u64, count: u64) -> bool {
        sector.checked_add(count).is_some_and(|end| end <= self.sectors)
    }

    /// Discards a range, or makes it zeroes.
    fn clear(&self, ram: &Ram, chain: &Chain, zeroes: bool) -> Result<usize, Status> {
        if self.read_only {
            return Err(Status::Error);
        }
        let mut range = [0; 16];
        if ram.gather(&chain.readable, HEADER, &mut range) < range.len() {
            return Err(Status::Error);
        }
        let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, f0, ..] = range;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([c0, c1, c2, c3]);
        if count > MOST_SECTORS || !self.holds(sector, u64::from(count)) {
            return Err(Status::Error);
        }
        if count == 0 {
            return Ok(0);
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let flags =
            if zeroes && f0 & 1 == 0 { FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE } else { hole };
        match rustix::fs::fallocate(&self.file, flags, sector * SECTOR, u64::from(count) * SECTOR) {
            Ok(()) => Ok(0),
            Err(rustix::io::Errno::OPNOTSUPP) => Err(Status::Unsupported),
            Err(_) => Err(Status::Error),
        }
    }
}

impl Device for Block {
    fn kind(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        let base = feature::SEG_MAX | feature::BLK_SIZE;
        if self.read_only {
            return base | feature::READ_ONLY;
        }
        base | feature::FLUSH | feature::DISCARD | feature::WRITE_ZEROES
    }

    fn queues(&self) -> Vec<u16> {
        vec![256]
    }

    fn config(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn kicked(&mut self, active: &mut Active, queue: usize) {
        active.serve(queue, true, |ram, chain| self.perform(ram, chain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::driver::{BUFFERS, Driver};

    const DATA: u64 = BUFFERS + 0x1000;
    const STATUS: u64 = BUFFERS + 0x8000;

    fn disk(read_only: bool) -> (Block, Driver) {
        let file = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 8192 + 100).unwrap();
        let device = Block::new(file, read_only, "serial-1".into()).unwrap();
        let driver = Driver::new(&device);
        (device, driver)
    }

    /// One request; its status, and how much was written.
    fn request(
        device: &mut Block,
        driver: &mut Driver,
        kind: u32,
        sector: u64,
        data: &[(u64, u32, bool)],
    ) -> (u8, u32) {
        let mut header = kind.to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        assert!(driver.ram.write(BUFFERS, &header));
        assert!(driver.ram.write(STATUS, &[0xee]));
        let mut chain = vec![(BUFFERS, 16, false)];
        chain.extend(data);
        chain.push((STATUS, 1, true));
        driver.offer(0, &chain);
        device.kicked(&mut driver.active, 0);
        (driver.bytes(STATUS, 1)[0], driver.used(0)[0])
    }

    #[test]
    fn what_is_written_is_read_back_across_pieces() {
        let (mut device, mut driver) = disk(false);
        assert!(driver.ram.write(DATA, &[7; 512]));
        assert_eq!(
            request(&mut device, &mut driver, 1, 3, &[(DATA, 200, false), (DATA + 200, 312, false)]),
            (0, 1)
        );
        assert_eq!(
            request(&mut device, &mut driver, 0, 3, &[(DATA + 1024, 500, true), (DATA + 2048, 12, true)]),
            (0, 513)
        );
        assert_eq!(driver.bytes(DATA + 2048, 12), [7; 12]);
        assert_eq!(request(&mut device, &mut driver, 4, 0, &[]), (0, 1));
    }

    #[test]
    fn what_is_beyond_the_disk_or_no_whole_sector_is_an_error() {
        let (mut device, mut driver) = disk(false);
        // 8292 bytes are sixteen sectors.
        assert_eq!(request(&mut device, &mut driver, 0, 15, &[(DATA, 512, true)]).0, 0);
        assert_eq!(request(&mut device, &mut driver, 0, 15, &[(DATA, 1024, true)]).0, 1);
        assert_eq!(request(&mut device, &mut driver, 1, u64::MAX, &[(DATA, 512, false)]).0, 1);
        assert_eq!(request(&mut device, &mut driver, 0, 0, &[(DATA, 511, true)]).0, 1);
        assert_eq!(request(&mut device, &mut driver, 99, 0, &[]).0, 2);
    }

    #[test]
    fn read_only_disk_refuses_writes_and_discards() {
        let (mut device, mut driver) = disk(true);
        assert_ne!(device.features() & feature::READ_ONLY, 0);
        assert_eq!(request(&mut device, &mut driver, 1, 0, &[(DATA, 512, false)]).0, 1);
        assert_eq!(request(&mut device, &mut driver, 11, 0, &[(DATA, 16, false)]).0, 1);
    }

    #[test]
    fn serial_number_is_told() {
        let (mut device, mut driver) = disk(false);
        assert_eq!(request(&mut device, &mut driver, 8, 0, &[(DATA, 20, true)]), (0, 21));
        assert_eq!(driver.bytes(DATA, 9), b"serial-1\0");
    }

    #[test]
    fn discard_makes_a_hole_and_beyond_the_end_is_refused() {
        let (mut device, mut driver) = disk(false);
        assert!(driver.ram.write(DATA, &[7; 4096]));
        assert_eq!(request(&mut device, &mut driver, 1, 8, &[(DATA, 4096, false)]).0, 0);
        let mut range = 8_u64.to_le_bytes().to_vec();
        range.extend(8_u32.to_le_bytes());
        range.extend([0; 4]);
        assert!(driver.ram.write(DATA, &range));
        assert_eq!(request(&mut device, &mut driver, 11, 0, &[(DATA, 16, false)]).0, 0);
        assert_eq!(request(&mut device, &mut driver, 0, 8, &[(DATA + 64, 512, true)]).0, 0);
        assert_eq!(driver.bytes(DATA + 64, 512), [0; 512]);
        assert!(driver.ram.write(DATA, &12_u64.to_le_bytes()));
        assert_eq!(request(&mut device, &mut driver, 11, 0, &[(DATA, 16, false)]).0, 1);
    }
}
