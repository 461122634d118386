//! A file system on a device that is reached over the network.

use ext2_image::mkfs::{DeviceOutput, Fresh, Output as _};

use super::source::Taken;
use super::{Args, Wanted, failed, plan, print, to_json};
use crate::clock;
use crate::context::Context;
use crate::failure::{Failure, Of, Result};
use crate::progress::bytes_bar;
use crate::target::{Mode, Target};

pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let target = Target::parse(args.image.as_os_str())?;
    if args.seal || args.pfn_header || args.disk.is_wanted() || target.path() != b"/" {
        let what =
            "no seal, no header, no partitions and no path where the image is reached over the network";
        return Err(Failure::usage(args.image.as_os_str(), what));
    }
    let failed = failed(&args.image);
    let epoch = clock::epoch()?;
    let mut taken = Taken::read(args, epoch, true)?;
    let device = target.open_device(&context.image, Mode::Write, blockdev::Durability::Strict)?;
    let name = || target.image_name();
    let _claim = device.claim(0, device.size()).of(name)?;
    let mut start = vec![0; usize::try_from(device.size().min(1 << 16)).unwrap_or(0)];
    device.read_at(0, &mut start).of(name)?;
    if !args.force && start.iter().any(|&byte| byte != 0) {
        return Err(Failure::text(name(), "is not empty: --force replaces it"));
    }
    let wanted = Wanted { base: target.offset(), room: device.size(), is_in_place: true };
    let (plan, format) = plan(args, &mut taken, epoch, &wanted, None, context)?;
    if plan.bytes() > device.size() {
        let small = ext2_image::mkfs::Error::TooSmall { needed: plan.bytes(), given: device.size() };
        return Err(failed(small));
    }
    plan.tree().warnings().iter().for_each(|warning| context.warn(&warning.to_string()));
    let out = DeviceOutput::new(&*device, Fresh::Unknown);
    let bar = bytes_bar("copying", plan.payload());
    let report = plan.write(&mut *taken.input.contents, &out, &mut |copied| bar.set_position(copied));
    bar.finish_and_clear();
    let report = report.map_err(&failed)?;
    out.flush().map_err(&failed)?;
    if args.json {
        return context.out.json(&to_json(&plan, &report, &format, 0));
    }
    if args.quiet { Ok(()) } else { print(&plan, &report, &format, context) }
}
