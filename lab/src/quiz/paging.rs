//! How many faults a program takes. The answer is what the machine counts.

use super::random::Random;
use super::{Question, shuffled};
use crate::flight::fly;
use crate::machines::{empty_image, standard};

/// Bytes of the image: room for the files below, in whole units.
const SIZE: u64 = 32 << 20;

pub(super) fn ask(seed: u64, random: &mut Random) -> Result<(Question, Vec<u8>), String> {
    let machines = standard();
    let machine = random.choose(&machines).cloned().ok_or("there are no machines")?;
    let units = 1 + random.below(3);
    let size = units * 0x20_0000;
    let kinds = [
        ("a hole of", format!("create f\ntruncate f {size}\n")),
        ("a file, written in one call, of", format!("create f\nwrite f 0 {size} 1\n")),
        (
            "a file that is a hole but for its first 4 KiB, of",
            format!("create f\nwrite f 0 4096 1\ntruncate f {size}\n"),
        ),
    ];
    let (kind, make) = random.choose(&kinds).cloned().ok_or("there are no files")?;
    let pages = [1, 16, size / 4096][random.below(3) as usize % 3];
    let script = format!("{make}map m f 0 {size} shared ro\ntouch m 0 {}\n", pages * 4096);
    let image = empty_image(SIZE)?;
    let flight = fly(&script, &image, std::slice::from_ref(&machine))?;
    let step = flight.machines.first().and_then(|track| track.steps.last()).ok_or("nothing was flown")?;
    let faults = step.counts.faults();
    let others = [1, 2, 3, pages, pages / 2 + 1, units, units + 512, pages + units, 512, 4]
        .map(|count| count.to_string());
    let (choices, right) = shuffled(random, faults.to_string(), others.to_vec());
    let question = Question {
        seed,
        topic: "paging",
        text: format!(
            "{} ({}). A program maps {kind} {} MiB, and loads one byte of each of its first {pages} pages. How many faults does it \
             take? One that falls back from 2 MiB to 4 KiB counts once.",
            machine.name,
            machine.about,
            2 * units
        ),
        choices,
        right,
        explanation: format!(
            "{} faults of 4 KiB and {} of 2 MiB were handled, of which {} fell back; the file system was asked {} times.",
            step.counts.pte_faults, step.counts.pmd_faults, step.counts.fallbacks, step.counts.calls
        ),
        place: (String::new(), String::new()),
    };
    Ok((question, image))
}
