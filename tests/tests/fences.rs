//! Each fence is there for a reason: leave one out, and some crash shows it.

use std::collections::BTreeMap;

use blockdev::crash::Limits;
use e2dax_tests::crash::{self, Action, Base, Device, Plan};

/// The workloads of this test: each operation, and an fsync or sync after it.
fn workloads() -> Vec<(String, Vec<Action>)> {
    let with_sync = |action: Action| {
        let last = action.target().map_or(Action::Sync, Action::Fsync);
        (format!("{action:?}"), vec![action, last])
    };
    crash::vocabulary().into_iter().map(with_sync).collect()
}

#[test]
fn a_fence_that_is_left_out_is_noticed() {
    let base = Base::of("times");
    let (mut noticed, mut left_out) = (0u64, 0u64);
    let mut unnoticed = BTreeMap::<String, Vec<u64>>::new();
    for (name, workload) in workloads() {
        let plan = |without_fence| Plan {
            limits: Limits { exhaustive: 64, edges: 16, pairs: 8, samples: 8, ..Limits::default() },
            without_fence,
            states: 400,
            ..Plan::new(base.clone(), Device::Words)
        };
        let whole = crash::run(&plan(None), [workload.clone()].into_iter());
        assert!(whole.violations.is_empty(), "{name}: {:?}", whole.violations);
        for fence in 0..whole.fences {
            let without = crash::run(&plan(Some(fence)), [workload.clone()].into_iter());
            left_out += 1;
            if without.violations.is_empty() {
                unnoticed.entry(name.clone()).or_default().push(fence);
            } else {
                noticed += 1;
            }
        }
    }
    println!("{left_out} fences left out one by one: {noticed} noticed; not noticed, by their number:");
    for (name, fences) in &unnoticed {
        println!("  {name}: {fences:?}");
    }
    assert!(noticed * 4 > left_out, "{noticed} of {left_out} noticed");
}
