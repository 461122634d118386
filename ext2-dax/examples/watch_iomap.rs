//! What the file system was asked and what it answered, as the kernel's tracepoints show it.
//!
//! `cargo run -p ext2-dax --example watch_iomap`

use ext2_core::{Ext2, Follow, OpenOptions};
use ext2_dax::trace::{Event, EventLog, ftrace};
use ext2_dax::{DaxFs, DaxOptions, File, OpenFor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let fs = Ext2::open(ext2_image::mkfs::in_memory(16 << 20)?, &OpenOptions::default())?;
    fs.write("file", "")?;
    let dax = DaxFs::new(fs.clone(), DaxOptions::default());
    let file = File::open(&dax, fs.resolve("file", Follow::Yes)?, OpenFor::Writing)?;

    let log = EventLog::new();
    dax.tracer().listen(Some(log.clone()));
    file.write_all_at(3 << 20, b"behind a hole of 3 MiB")?;
    let mut buf = vec![0; 4 << 20];
    file.read_at(0, &mut buf)?;
    file.sync()?;
    dax.tracer().listen(None);

    let (mut text, records) = (String::new(), log.take());
    for record in &records {
        ftrace::write(&mut text, record)?;
    }
    print!("{text}");
    // The hole is answered in full, as one mapping: the file is read by two.
    let whole =
        |event: &Event| matches!(event, Event::IomapIter { offset: 0, answered, .. } if *answered == 3 << 20);
    assert!(records.iter().any(|record| whole(&record.event)));
    Ok(())
}
