//! A mapping that is made while a close fails.

use std::thread;
use std::time::Duration;

use super::*;

/// Whether its stores are stopped.
#[derive(Debug, Default)]
struct Made(AtomicBool);

impl Translations for Made {
    fn zap(&self, _: u64, _: u64, _: PrivateCopies) {}

    fn write_protect(&self, _: u64, _: u64) {}

    fn stop_stores(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn resume_stores(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

#[test]
fn a_mapping_that_is_made_while_closing_fails_lets_stores_through() {
    let (wait, tracer) = (Arc::new(WaitTable::new()), Arc::new(Tracer::new()));
    let (pages, made) = (DaxMapping::new(InodeId::default(), wait, tracer), Arc::new(Made::default()));
    pages.stop_stores();
    pages.attach(Arc::clone(&made) as Arc<dyn Translations>);
    thread::scope(|scope| {
        // As a mapping does that is being made.
        let faults = pages.lock_shared();
        assert!(pages.are_stores_stopped());
        scope.spawn(|| pages.resume_stores());
        thread::sleep(Duration::from_millis(200));
        made.stop_stores();
        drop(faults);
    });
    assert!(!pages.are_stores_stopped() && !made.0.load(Ordering::SeqCst));
}
