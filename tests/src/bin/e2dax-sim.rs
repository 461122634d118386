//! `e2dax-sim`: runs of the simulator.
fn main() {
    let first: u64 = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(0);
    let count: u64 = std::env::args().nth(2).and_then(|arg| arg.parse().ok()).unwrap_or(1);
    let trace = std::env::args().nth(3).is_some();
    let mut bad = 0;
    for seed in first..first + count {
        if let Err(failure) = e2dax_tests::sim::run(&e2dax_tests::sim::Options::of(seed)) {
            println!("{failure}");
            bad += 1;
            if trace { for (nr, (step, words)) in failure.steps.iter().enumerate() { println!("{nr} {step} -> {words}"); } }
        }
    }
    println!("{bad} of {count}");
}
