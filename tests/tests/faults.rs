//! A device that fails once, or for good, at every call of an operation: the caller gets an error or what it asked for,
//! and nothing else is lost.

#[path = "faults/host.rs"]
mod host;
#[path = "faults/losses.rs"]
mod losses;
#[path = "faults/lost_rights.rs"]
mod lost_rights;
#[path = "faults/passed_by.rs"]
mod passed_by;
#[path = "faults/written_again.rs"]
mod written_again;

use std::sync::Arc;

use blockdev::{Calls, Fault, FaultError, Faulty, RamDevice, Tear};
use e2dax_tests::{
    Scratch,
    crash::{self, Action, Base, History, Moment},
    tree,
};
use ext2_core::{Errno, Ext2};
use ext2_image::check::{Checker, Outcome};

/// The calls that fail.
const CALLS: Calls =
    Calls::READ.union(Calls::WRITE).union(Calls::ZERO).union(Calls::FENCE).union(Calls::FLUSH);

/// What an operation did while the device failed.
#[derive(Debug, Default)]
struct Tally {
    faults: u64,
    /// The operation returned an error; it worked all the same.
    errors: u64,
    successes: u64,
    /// Afterwards the file system took changes; it refused them.
    usable: u64,
    read_only: u64,
    problems: Vec<String>,
}

/// Performs an action while the device fails as `fault` says, goes on afterwards, and looks at what is left.
fn fail(base: &Base, action: &Action, fault: Fault, tally: &mut Tally) -> Result<(), String> {
    let ram = RamDevice::from_bytes(&base.image).map_err(|error| error.to_string())?;
    let device = Arc::new(Faulty::new(ram));
    let fs = Ext2::open(device.clone(), &crash::options()).map_err(|error| error.to_string())?;
    let mut history = History::new(tree::of(&fs)?, base.block_size).of_failing_device();
    device.arm(fault);
    let result = crash::perform(&fs, action);
    let is_gone = fault.repeat == blockdev::Repeat::FromThenOn;
    if !is_gone {
        device.disarm();
    }
    tally.faults += 1;
    match &result {
        Ok(()) => tally.successes += 1,
        Err(_) => tally.errors += 1,
    }
    if !is_gone {
        match crash::perform(&fs, &Action::Create("/after")) {
            Ok(()) => {
                tally.usable += 1;
                crash::perform(&fs, &Action::Unlink("/after"))
                    .map_err(|error| format!("after it: {error}"))?;
            }
            Err(error) if error.errno() == Errno::ROFS => tally.read_only += 1,
            Err(error) => return Err(format!("afterwards: {error}")),
        }
        // Where a name is there by half, reading may stop at it until it is mended; but then nothing is changed.
        if let Err(error) = tree::of(&fs)
            && !fs.is_read_only()
        {
            return Err(format!("cannot be read afterwards: {error}"));
        }
    }
    // Closing may fail as well; what is on the device counts.
    let _ = fs.close();
    device.disarm();
    let left = Arc::new(Scratch::new(device.inner().to_vec()));
    let mut findings = Vec::new();
    let outcome = Checker::new().mend(&*left, crash::NOW, &mut |finding| findings.push(finding.to_string()));
    match outcome.map_err(|error| error.to_string())? {
        Outcome::Halts(finding) => return Err(format!("needs a person: {finding}")),
        Outcome::Clean | Outcome::Mended(_) => {}
    }
    // What would have become of it had nothing failed.
    let whole = Arc::new(RamDevice::from_bytes(&base.image).map_err(|error| error.to_string())?);
    let fs = Ext2::open(whole, &crash::options()).map_err(|error| error.to_string())?;
    let done = crash::perform(&fs, action).is_ok();
    history.push(done.then(|| action.clone()), tree::of(&fs)?);
    let moment = if result.is_ok() && !is_gone { Moment::After(1) } else { Moment::During(0) };
    let mut found = tree::read(left)?;
    found.remove(&b"/after"[..]);
    history.judge(moment, &found).map_err(|problem| format!("{problem}; operation: {result:?}; {findings:?}"))
}

/// Calls that an action makes.
fn count(base: &Base, action: &Action) -> u64 {
    let device = Arc::new(Faulty::new(RamDevice::from_bytes(&base.image).expect("memory")));
    let fs = Ext2::open(device.clone(), &crash::options()).expect("the base opens");
    device.arm(Fault::once(CALLS, u64::MAX));
    crash::perform(&fs, action).unwrap_or_else(|error| panic!("{action:?}: {error}"));
    let calls = device.counted();
    device.disarm();
    calls
}

#[test]
fn a_device_that_fails_at_any_call_costs_no_more_than_the_operation() {
    let base = Base::of("times");
    let mut tally = Tally::default();
    for action in crash::vocabulary() {
        let calls = count(&base, &action);
        let step = calls.div_ceil(80).max(1) as usize;
        for after in (0..calls).step_by(step) {
            let once = Fault::once(CALLS, after);
            let torn = Fault { tear: Tear::FirstHalf, ..once };
            let full = Fault { error: FaultError::NoSpace, ..once };
            for fault in [once, torn, full, Fault::from_then_on(CALLS, after)] {
                if let Err(problem) = fail(&base, &action, fault, &mut tally) {
                    tally.problems.push(format!("{action:?}, {fault:?}: {problem}"));
                }
            }
        }
    }
    println!(
        "{} faults: {} operations failed, {} did not; afterwards {} usable, {} read-only; {} problems",
        tally.faults,
        tally.errors,
        tally.successes,
        tally.usable,
        tally.read_only,
        tally.problems.len()
    );
    let first: Vec<&String> = tally.problems.iter().take(40).collect();
    assert!(first.is_empty(), "{first:#?}");
}
