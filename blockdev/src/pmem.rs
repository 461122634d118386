/// Placeholder until the file lands.
#[derive(Debug)] pub struct PmemSlice<'a>(core::marker::PhantomData<&'a ()>);
