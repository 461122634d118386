//! Devices and files of tests over others: what they do not do themselves the one below does.

/// Methods of [`BlockDevice`](blockdev::BlockDevice) that hand on to a field, for use in its implementation.
#[macro_export]
macro_rules! forward {
    ($inner:ident: $($method:ident),+ $(,)?) => { $($crate::forward!(@ $inner $method);)+ };
    (@ $inner:ident size) => {
        fn size(&self) -> u64 {
            self.$inner.size()
        }
    };
    (@ $inner:ident read_at) => {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> ::blockdev::Result<()> {
            self.$inner.read_at(offset, buf)
        }
    };
    (@ $inner:ident write_at) => {
        fn write_at(&self, offset: u64, buf: &[u8]) -> ::blockdev::Result<()> {
            self.$inner.write_at(offset, buf)
        }
    };
    (@ $inner:ident zero) => {
        fn zero(&self, offset: u64, len: u64) -> ::blockdev::Result<()> {
            self.$inner.zero(offset, len)
        }
    };
    (@ $inner:ident fence) => {
        fn fence(&self) -> ::blockdev::Result<()> {
            self.$inner.fence()
        }
    };
    (@ $inner:ident flush) => {
        fn flush(&self) -> ::blockdev::Result<()> {
            self.$inner.flush()
        }
    };
}

/// Methods of [`VmFile`](ext2_dax::mmu::VmFile) that hand on to a field, for use in its implementation.
#[macro_export]
macro_rules! forward_file {
    ($inner:ident: $($method:ident),+ $(,)?) => { $($crate::forward_file!(@ $inner $method);)+ };
    (@ $inner:ident pages) => {
        fn pages(&self) -> &::std::sync::Arc<::ext2_dax::mapping::DaxMapping> {
            ::ext2_dax::mmu::VmFile::pages(&self.$inner)
        }
    };
    (@ $inner:ident memory) => {
        fn memory(&self) -> &dyn ::blockdev::DaxDevice {
            self.$inner.memory()
        }
    };
    (@ $inner:ident fault) => {
        fn fault(&self, request: &::ext2_dax::fault::FaultRequest<'_>) -> ::ext2_dax::fault::FaultResult {
            self.$inner.fault(request)
        }
    };
    (@ $inner:ident has_huge_faults) => {
        fn has_huge_faults(&self) -> bool {
            self.$inner.has_huge_faults()
        }
    };
    (@ $inner:ident huge_fault) => {
        fn huge_fault(&self, request: &::ext2_dax::fault::FaultRequest<'_>) -> ::ext2_dax::fault::FaultResult {
            self.$inner.huge_fault(request)
        }
    };
    (@ $inner:ident msync) => {
        fn msync(&self, first: u64, last: u64) -> ::ext2_dax::Result<()> {
            self.$inner.msync(first, last)
        }
    };
    (@ $inner:ident layout) => {
        fn layout(&self, first: u64, end: u64, most: usize) -> ::ext2_dax::Result<Vec<::ext2_dax::mmu::Extent>> {
            self.$inner.layout(first, end, most)
        }
    };
    (@ $inner:ident end_page) => {
        fn end_page(&self) -> u64 {
            self.$inner.end_page()
        }
    };
    (@ $inner:ident stored) => {
        fn stored(&self) {
            self.$inner.stored();
        }
    };
    (@ $inner:ident check_map) => {
        fn check_map(
            &self,
            sharing: ::ext2_dax::mmu::Sharing,
            protection: ::ext2_dax::mmu::Protection,
        ) -> ::ext2_dax::Result<()> {
            self.$inner.check_map(sharing, protection)
        }
    };
}
