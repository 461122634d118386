//! The library, with what each actor holds of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{
    BlockDevice, CacheOptions, Cached, Counted, FileDevice, Locking, Media, MmapDevice, Overlay, Partition,
    RamDevice,
};
use ext2_core::{Closed, Ext2, FileBlock, Inode, OpenOptions};
use ext2_dax::{
    DataPath, DaxFs, DaxOptions, File, Lease, OpenFor,
    buffer_head::HoleSize,
    mmu::{
        Protection, Vma,
        host::{Faulting, Granularity, HostMap, HostMmu, HostOptions, StoresBy},
        soft::{Died, MapRequest, SoftMap, SoftMmu},
    },
};
use tempfile::TempDir;

use super::{
    Backend, HANDS, Mode, Options, Room, Scene,
    clock::StepClock,
    operation::{FILES, LEASES, LISTINGS, MAPS},
    unwritten::Unwritten,
};
use crate::golden;

/// A mapping, in software or in this process.
#[derive(Clone, Debug)]
pub(super) enum Mapped {
    Soft(Arc<SoftMap>),
    Host(Arc<HostMap>),
}

impl Mapped {
    pub(super) fn load(&self, at: u64, bytes: &mut [u8]) -> Result<(), Died> {
        match self {
            Self::Soft(map) => map.load_bytes(at, bytes),
            Self::Host(map) => map.try_load(at, bytes),
        }
    }

    pub(super) fn store(&self, at: u64, bytes: &[u8]) -> Result<(), Died> {
        match self {
            Self::Soft(map) => map.store_bytes(at, bytes),
            Self::Host(map) => map.try_store(at, bytes).inspect_err(|_| {
                // A page that was refused is a bus error to loads as well, for a moment.
                std::thread::sleep(std::time::Duration::from_millis(30));
            }),
        }
    }

    /// What is mapped, and for what.
    pub(super) fn vma(&self) -> &Vma {
        match self {
            Self::Soft(map) => map.vma(),
            Self::Host(map) => map.vma(),
        }
    }

    pub(super) fn msync(&self, at: u64, len: u64) -> ext2_dax::Result<()> {
        match self {
            Self::Soft(map) => map.msync(at, len),
            Self::Host(map) => map.msync(at, len),
        }
    }
}

/// What an actor holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) hands: Vec<Option<Inode>>,
    pub(super) files: Vec<Option<(File, OpenFor)>>,
    pub(super) maps: Vec<Option<Mapped>>,
    /// The inodes of the mappings.
    pub(super) mapped: Vec<Option<Inode>>,
    /// With whether they are to be written through.
    pub(super) leases: Vec<Option<(Lease, bool)>>,
    /// Directories with where listing goes on.
    pub(super) listings: Vec<Option<(Inode, u64)>>,
    mmu: Arc<SoftMmu>,
    /// Where mappings are real.
    host: Option<Arc<HostMmu>>,
}

impl Held {
    pub(super) fn new(host: Option<Arc<HostMmu>>) -> Self {
        fn none<T>(count: u8) -> Vec<Option<T>> {
            (0..count).map(|_| None).collect()
        }
        Self {
            hands: none(HANDS),
            files: none(FILES),
            maps: none(MAPS),
            mapped: none(MAPS),
            leases: none(LEASES),
            listings: none(LISTINGS),
            mmu: SoftMmu::new(),
            host,
        }
    }

    /// Lets go of everything.
    pub(super) fn let_go(&mut self) {
        *self = Self::new(self.host.take());
    }

    /// Mappings in software through which a file is stored to, and whose first page has a block.
    pub(super) fn stored(&self) -> impl Iterator<Item = &SoftMap> {
        let both = self.maps.iter().zip(&self.mapped);
        both.filter_map(|(map, inode)| match (map, inode) {
            (Some(Mapped::Soft(map)), Some(inode)) => {
                let vma = map.vma();
                // Where 2 MiB fit, a store may bring blocks for all of them.
                let is_short = vma.page_at(vma.end) - vma.pgoff < 512;
                let stores = vma.is_shared() && vma.protection == Protection::ReadWrite && is_short;
                let run = inode.map(FileBlock::new(vma.pgoff), 1);
                (stores && run.is_ok_and(|run| !run.is_hole())).then_some(&**map)
            }
            _ => None,
        })
    }

    /// Files that are open for writing, whose first block is there.
    pub(super) fn written(&self) -> impl Iterator<Item = &File> {
        self.files.iter().flatten().filter_map(|(file, open_for)| {
            let is_there = file.inode().map(FileBlock::new(0), 1).is_ok_and(|run| !run.is_hole());
            (*open_for == OpenFor::Writing && is_there).then_some(file)
        })
    }

    /// Maps a file.
    pub(super) fn map(&self, file: &File, request: &MapRequest) -> ext2_dax::Result<Mapped> {
        match &self.host {
            Some(mmu) => file.map_host(mmu, request).map(|map| Mapped::Host(Arc::new(map))),
            None => file.map(&self.mmu, request).map(|map| Mapped::Soft(Arc::new(map))),
        }
    }
}

/// Who serves real mappings, where the options want them and the machine can.
fn host_mmu(options: &Options) -> Option<Arc<HostMmu>> {
    // Who answers faults takes no turns.
    let is_eager = options.mode == Mode::Threads;
    let by_pages = !is_eager && options.seed.is_multiple_of(2);
    let host = HostOptions {
        faulting: if is_eager { Faulting::Eager } else { Faulting::Auto },
        granularity: if by_pages { Granularity::Pages } else { Granularity::Extents },
        ..HostOptions::default()
    };
    let can_be = is_eager || HostMmu::features().faults;
    (options.real_mappings && can_be).then(|| HostMmu::new(host).ok()).flatten()
}

/// A file system and who uses it.
#[derive(Debug)]
pub struct World {
    pub(super) device: Arc<dyn BlockDevice>,
    /// The same, where it knows what was not written back.
    pub(super) unwritten: Option<Arc<Unwritten>>,
    pub(super) open: OpenOptions,
    dax_options: DaxOptions,
    /// Nothing only while it is opened anew.
    pub(super) fs: Option<DaxFs>,
    pub(super) clock: Arc<StepClock>,
    pub(super) actors: Vec<Held>,
    pub(super) kind: DeviceKind,
    /// From which the turns of threads come.
    pub(super) schedule: u64,
    /// How often it was closed under all.
    pub(super) closes: u64,
    pub(super) folder: Option<TempDir>,
}

impl World {
    /// A world on a device that holds a file system.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn new(options: &Options, device: Arc<dyn BlockDevice>) -> Result<Self, ext2_core::Error> {
        let clock = Arc::new(StepClock::default());
        let open = OpenOptions {
            errors: Some(options.on_error),
            policy: options.policy,
            strict_rename: options.strict_rename,
            share_xattrs: options.share_xattrs,
            keep_reserved: options.reserved,
            log: options.log && !options.batch,
            batch: options.batch,
            clock: Some(clock.clone()),
            ..OpenOptions::default()
        };
        let path = if options.buffer_head { DataPath::BufferHead(HoleSize::InFull) } else { DataPath::Iomap };
        let dax_options = DaxOptions { path, ..DaxOptions::default() };
        let host = host_mmu(options);
        let mut world = Self {
            device,
            unwritten: None,
            open,
            dax_options,
            fs: None,
            clock,
            actors: (0..options.actors).map(|_| Held::new(host.clone())).collect(),
            kind: DeviceKind::of(options),
            schedule: options.schedule,
            closes: 0,
            folder: None,
        };
        world.clock.set(options.begin);
        world.mount(false)?;
        Ok(world)
    }

    /// A world on a device that the options name, with these bytes.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn of_image(options: &Options, image: &[u8]) -> Result<Self, ext2_core::Error> {
        if options.scene == Some(Scene::SyncedTogether) {
            let unwritten = Arc::new(Unwritten::new(image));
            let world = Self::new(options, unwritten.clone())?;
            return Ok(Self { unwritten: Some(unwritten), ..world });
        }
        let (device, folder) = device(DeviceKind::of(options), image);
        Ok(Self { folder, ..Self::new(options, device)? })
    }

    /// The file system.
    ///
    /// # Panics
    /// Where the last attempt to open it failed: nothing is asked of it any more then.
    #[must_use]
    pub fn fs(&self) -> &DaxFs {
        self.fs.as_ref().expect("the file system is open")
    }

    /// The core below it.
    #[must_use]
    pub fn ext2(&self) -> &Ext2 {
        self.fs().ext2()
    }

    /// What is free for who may not take the reserve.
    pub(super) fn room(&self) -> Result<Room, String> {
        let free = self.ext2().statfs().map_err(|error| error.to_string())?;
        Ok(Room { blocks: free.blocks_available, inodes: free.files_free })
    }

    /// Opens the file system.
    pub(super) fn mount(&mut self, read_only: bool) -> Result<(), ext2_core::Error> {
        let open = OpenOptions { read_only, ..self.open.clone() };
        let ext2 = Ext2::open(self.device.clone(), &open)?;
        self.fs = Some(DaxFs::new(ext2, self.dax_options));
        Ok(())
    }

    /// All actors are threads of one process from now on: they have what the first has.
    pub(super) fn become_one_process(&mut self) {
        let Some(first) = self.actors.first().cloned() else { return };
        self.actors.fill(first);
    }

    /// Everybody lets go of everything.
    pub(super) fn let_go(&mut self) {
        for held in &mut self.actors {
            // Maps and leases first, then who has the file.
            held.let_go();
        }
    }

    /// Whether the kernel has no more mappings than are counted, which is what the budget of them goes by.
    ///
    /// # Errors
    /// By how many it is wrong.
    pub(super) fn are_mappings_counted(&self) -> Result<(), String> {
        let Some(mmu) = self.actors.first().and_then(|held| held.host.as_ref()) else { return Ok(()) };
        let maps = self.actors.iter().flat_map(|held| held.maps.iter().flatten());
        // All actors may be one process.
        let maps: BTreeMap<u64, &HostMap> = maps
            .filter_map(|map| match map {
                // There, what was stored to is apart until it is written back.
                Mapped::Host(map) if matches!(map.stores_by(), StoresBy::Signals { .. }) => None,
                Mapped::Host(map) => Some((map.vma().start, &**map)),
                Mapped::Soft(_) => None,
            })
            .collect();
        let look = || {
            let views = maps.values().map(|map| map.view().map_or(0, |view| view.mappings));
            (views.sum::<u64>(), mmu.mappings())
        };
        // Who answers faults may be between the two.
        for wait in [0, 10, 100] {
            std::thread::sleep(std::time::Duration::from_millis(wait));
            if let (views, counted) = look()
                && views <= counted
            {
                return Ok(());
            }
        }
        let (views, counted) = look();
        Err(format!("the kernel has {views} mappings of files, {counted} are counted"))
    }

    /// Everybody lets go, and it is closed.
    ///
    /// # Errors
    /// Those of closing.
    pub fn close(&mut self) -> Result<Closed, ext2_core::Error> {
        self.let_go();
        let fs = self.fs.take().expect("it is open");
        fs.ext2().clone().close()
    }

    /// Whether the device can be opened for writing once more.
    pub(super) fn opens_twice(&self) -> bool {
        Ext2::open(self.device.clone(), &self.open).is_ok()
    }

    /// All bytes of the device.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.device.size() as usize];
        self.device.read_at(0, &mut bytes).expect("the device is read");
        bytes
    }
}

/// What a device is.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeviceKind {
    backend: Backend,
    persistent: bool,
    in_a_part: bool,
}

impl DeviceKind {
    fn of(options: &Options) -> Self {
        let Options { backend, persistent, in_a_part, .. } = *options;
        Self { backend, persistent, in_a_part }
    }
}

/// A device that holds these bytes, and the folder that its file lies in.
pub(super) fn device(kind: DeviceKind, image: &[u8]) -> (Arc<dyn BlockDevice>, Option<TempDir>) {
    if !kind.in_a_part {
        return whole_device(kind, image);
    }
    const BEGIN: usize = 1 << 20;
    let (whole, folder) = whole_device(kind, &[&vec![0xee; BEGIN], image].concat());
    (Arc::new(Partition::from_offset(whole, BEGIN as u64).expect("a part")), folder)
}

fn whole_device(kind: DeviceKind, image: &[u8]) -> (Arc<dyn BlockDevice>, Option<TempDir>) {
    let media = if kind.persistent { Media::Persistent } else { Media::Volatile };
    let ram = || {
        let device = RamDevice::with_media(image.len() as u64, media).expect("memory");
        device.write_at(0, image).expect("memory is written");
        device
    };
    let file = || {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder");
        let path = folder.path().join("image");
        golden::write_sparse(&path, image).expect("written");
        let options =
            blockdev::DeviceOptions { lock: Locking::Skip, ..blockdev::DeviceOptions::read_write() };
        (folder, path, options)
    };
    match kind.backend {
        Backend::Ram => (Arc::new(ram()), None),
        Backend::Overlay => (Arc::new(Overlay::new(ram()).expect("memory")), None),
        Backend::Counted => (Arc::new(Counted::new(ram())), None),
        Backend::File => {
            let (folder, path, options) = file();
            (Arc::new(FileDevice::open(&path, &options).expect("opened")), Some(folder))
        }
        Backend::CachedFile => {
            let (folder, path, options) = file();
            let file = FileDevice::open(&path, &options).expect("opened");
            (Arc::new(Cached::new(file, CacheOptions::default()).expect("a cache")), Some(folder))
        }
        Backend::Mmap => {
            let (folder, path, options) = file();
            (Arc::new(MmapDevice::open(&path, &options).expect("opened")), Some(folder))
        }
    }
}
