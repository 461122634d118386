//! The log of one run, and the states that it gives, for each device.

use std::{ops::ControlFlow, sync::Arc};

use blockdev::{
    RamDevice, RecordedOp, Recorder,
    crash::{BlockModel, CrashReport, CrashState, FenceMeans, PmemModel, PmemOrder},
};

use super::{Device, Plan};

/// A device that holds `image` and keeps a log, without the fence or flush that the plan leaves out.
pub(super) fn recorder(plan: &Plan, image: &[u8]) -> Result<Arc<Recorder<RamDevice>>, String> {
    let device = RamDevice::from_bytes(image).map_err(|error| error.to_string())?;
    let recorder = Arc::new(Recorder::new(device));
    if let Some(left_out) = plan.without {
        recorder.ignore_fence(move |fence| fence.tag == left_out.tag());
    }
    Ok(recorder)
}

/// Shows `visit` what a device that held `base` may hold when it crashes at any moment of `log`, but for the moments
/// before its mark number `skip_marks`.
pub(super) fn states_of(
    plan: &Plan,
    base: &[u8],
    log: &[RecordedOp],
    skip_marks: usize,
    visit: impl FnMut(&CrashState<'_>) -> ControlFlow<()>,
) -> CrashReport {
    let order = match plan.device {
        Device::Lines => PmemOrder::Lines,
        Device::Words => PmemOrder::Words,
        Device::Program => PmemOrder::Program,
        Device::Sectors => {
            let mut model = BlockModel::new(base, log).fences(FenceMeans::Durable);
            (model.limits, model.skip_marks) = (plan.limits, skip_marks);
            return model.run(visit);
        }
    };
    let mut model = PmemModel::new(base, log).order(order);
    (model.limits, model.skip_marks) = (plan.limits, skip_marks);
    model.run(visit)
}
