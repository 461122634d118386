//! The states of one log, for each device.

use std::ops::ControlFlow;

use blockdev::{
    Op,
    crash::{BlockModel, CrashState, FenceMeans, PmemModel, PmemOrder, Report},
};

use super::{Device, Plan};

/// Shows `visit` what a device that held `base` may hold when it crashes at any moment of `log`, but for the moments
/// before its mark number `skip_marks`.
pub(super) fn states_of(
    plan: &Plan,
    base: &[u8],
    log: &[Op],
    skip_marks: usize,
    visit: impl FnMut(&CrashState<'_>) -> ControlFlow<()>,
) -> Report {
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
