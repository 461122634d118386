//! The virtio disk, through the `virtio-drivers` crate.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::string::ToString;
use core::alloc::Layout;
use core::ptr::NonNull;

use blockdev::{Error, ReadAt, Result};
use spin::Mutex;
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Where the machine has room for eight virtio devices, and how much each takes.
const PLACES: usize = 0x1000_1000;
const PLACE: usize = 0x1000;

/// Bytes that are read at once: what is asked for need not begin or end with a sector.
const BOUNCE: usize = 8 * SECTOR_SIZE;

/// The first disk of the machine.
pub struct Disk(Mutex<VirtIOBlk<Physical, MmioTransport<'static>>>);

impl Disk {
    /// Looks through the machine's virtio devices.
    pub fn find() -> Option<Self> {
        (0..8).find_map(|nr| {
            let header = NonNull::new((PLACES + nr * PLACE) as *mut VirtIOHeader)?;
            // SAFETY: the registers of the machine's virtio devices, which nobody else uses and which stay.
            let transport = unsafe { MmioTransport::new(header, PLACE) }.ok()?;
            (transport.device_type() == DeviceType::Block)
                .then(|| VirtIOBlk::new(transport).ok())?
                .map(|disk| Self(Mutex::new(disk)))
        })
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.0.lock().capacity() * SECTOR_SIZE as u64
    }
}

impl ReadAt for Disk {
    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<()> {
        let mut bounce = [0; BOUNCE];
        let mut disk = self.0.lock();
        while !buf.is_empty() {
            // OK to cast: sectors of a disk that fits into addresses, and bytes of one of them.
            let (sector, skip) =
                ((offset / SECTOR_SIZE as u64) as usize, (offset % SECTOR_SIZE as u64) as usize);
            let len = buf.len().min(BOUNCE - skip);
            let sectors = &mut bounce[..(skip + len).next_multiple_of(SECTOR_SIZE)];
            disk.read_blocks(sector, sectors).map_err(|error| Error::Io {
                op: "read",
                offset,
                errno: None,
                message: error.to_string(),
            })?;
            let (now, rest) = core::mem::take(&mut buf).split_at_mut(len);
            now.copy_from_slice(&sectors[skip..skip + len]);
            (buf, offset) = (rest, offset + len as u64);
        }
        Ok(())
    }
}

/// Memory that device and driver share: all of it, at the addresses that it has.
struct Physical;

fn pages(count: usize) -> Layout {
    Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE).expect("a driver asks for a few pages")
}

// SAFETY: addresses are physical, so that what the heap gives is where the device finds it; each method says the rest.
unsafe impl Hal for Physical {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: at least a page is asked for.
        let memory = unsafe { alloc_zeroed(pages(count)) };
        // An address of 0 tells the driver that there is no memory.
        (memory.addr() as PhysAddr, NonNull::new(memory).unwrap_or(NonNull::dangling()))
    }

    unsafe fn dma_dealloc(_: PhysAddr, memory: NonNull<u8>, count: usize) -> i32 {
        // SAFETY: the caller gives back what `dma_alloc` gave, with the same count.
        unsafe { dealloc(memory.as_ptr(), pages(count)) };
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).expect("no register is at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().addr().get() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
