//! How many crash states a second the models visit: a megabyte image, inode-sized and block-sized stores.

use std::ops::ControlFlow;
use std::time::Instant;

use blockdev::crash::{PmemModel, PmemOrder};
use blockdev::{BlockDevice, RamDevice, Recorder};

fn main() -> blockdev::Result<()> {
    const SIZE: usize = 1 << 20;
    let device = Recorder::new(RamDevice::new(SIZE as u64)?);
    for round in 0..200_u64 {
        let at = round * 4096 % (SIZE as u64 - 8192);
        device.write_at(at + 256, &[round as u8 + 1; 128])?;
        device.write_u32(at + 4096, round as u32 + 1)?;
        device.fence()?;
        device.write_at(at + 1024, &[round as u8 + 1; 1024])?;
        device.fence()?;
        device.mark(round);
    }
    let log = device.take();
    for order in [PmemOrder::Lines, PmemOrder::Words, PmemOrder::Program] {
        let begin = Instant::now();
        let mut sum = 0_u64;
        let report = PmemModel::new(&vec![0; SIZE], &log).order(order).run(|state| {
            sum += u64::from(state.image[4096]);
            ControlFlow::Continue(())
        });
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "{order:?}: {report:?}, {:.2} million states a second ({sum})",
            report.states as f64 / seconds / 1e6
        );
    }
    Ok(())
}
