//! Devices of tests over others: what they do not do themselves the one below does.

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
