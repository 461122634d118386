//! The simulator's seeds that map files into this process: every answer is the model's.

use e2dax_tests::sim::{self, Mode, Options};

use crate::setup::need_faults;

#[test]
fn what_the_simulator_does_by_real_mappings_is_what_its_model_says() {
    need_faults!();
    let runs = std::env::var("E2DAX_HOST_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let seeds = (1..).map(|seed| Options::of_mode(seed, Mode::Plain)).filter(|options| options.real_mappings);
    for options in seeds.take(runs) {
        if let Err(failure) = sim::run(&options) {
            panic!("{failure}");
        }
    }
}
