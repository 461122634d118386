//! Which mutants each killer comes by, and for which of them it makes a difference, from a run in which none is active.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    folder::Folder,
    killers::Killer,
    process::{self, End},
};

/// The bit by which the switch says that a mutant's value is another.
const DIFFERS: u32 = 1 << 31;
/// No killer may take much longer.
const USUAL: Duration = Duration::from_secs(2);

/// A killer with what is known of it.
#[derive(Debug)]
pub struct Known {
    /// The killer.
    pub killer: Killer,
    /// How long it takes where it finds nothing.
    pub time: Duration,
    /// The mutants that it comes by.
    pub reached: HashSet<u32>,
    /// Those whose value was another.
    pub differs: HashSet<u32>,
}

/// Runs each killer once, unless it was recorded since the build. Those that fail or take too long are named and left out.
///
/// # Errors
/// The host's.
pub fn record(folder: &Folder, killers: Vec<Killer>, workers: usize) -> io::Result<Vec<Known>> {
    fs::create_dir_all(folder.join("record"))?;
    let times = times(folder)?;
    let next = AtomicUsize::new(0);
    let known = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn({
                    let (killers, next, known, times) = (&killers, &next, &known, &times);
                    move || -> io::Result<()> {
                        while let Some(killer) = killers.get(next.fetch_add(1, Ordering::Relaxed)) {
                            if let Some(one) = record_one(folder, killer, worker, times)? {
                                known.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(one);
                            }
                        }
                        Ok(())
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")))
        })
    })?;
    Ok(known.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// What was recorded before: the milliseconds of each killer, or none where it is of no use.
fn times(folder: &Folder) -> io::Result<HashMap<String, Option<u64>>> {
    let row = |line: String| {
        let (time, name) = line.split_once('\t')?;
        Some((name.to_owned(), time.parse().ok()))
    };
    Ok(folder.lines("record/times.tsv")?.into_iter().filter_map(row).collect())
}

fn record_one(
    folder: &Folder,
    killer: &Killer,
    worker: usize,
    times: &HashMap<String, Option<u64>>,
) -> io::Result<Option<Known>> {
    let file = folder.join("record").join(killer.name.replace(['/', ' '], "-"));
    let time = match times.get(&killer.name) {
        Some(time) => *time,
        None => {
            let _ = fs::remove_file(&file);
            let temporary = folder.join(&format!("tmp-{worker}"));
            let path = file.to_string_lossy();
            let (end, took) = process::run(killer, ("E2DAX_MUTANT_RECORD", &path), USUAL, &temporary)?;
            let time = (end == End::Passed).then(|| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
            if time.is_none() {
                println!("not used, since it fails or takes long: {}", killer.name);
            }
            note(folder, &killer.name, time)?;
            time
        }
    };
    let Some(time) = time else { return Ok(None) };
    let (mut reached, mut differs) = (HashSet::new(), HashSet::new());
    for word in fs::read(&file).unwrap_or_default().as_chunks::<4>().0 {
        let word = u32::from_le_bytes(*word);
        reached.insert(word & !DIFFERS);
        if word & DIFFERS != 0 {
            differs.insert(word & !DIFFERS);
        }
    }
    Ok(Some(Known { killer: killer.clone(), time: Duration::from_millis(time), reached, differs }))
}

fn note(folder: &Folder, name: &str, time: Option<u64>) -> io::Result<()> {
    let time = time.map_or("-".to_owned(), |time| time.to_string());
    append(folder, "record/times.tsv", &format!("{time}\t{name}\n"))
}

/// Adds a line to a file, by one call.
///
/// # Errors
/// The host's.
pub fn append(folder: &Folder, name: &str, line: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(folder.join(name))?;
    io::Write::write_all(&mut file, line.as_bytes())
}

/// Forgets what was recorded, since another build numbers mutants otherwise.
///
/// # Errors
/// The host's.
pub fn forget(folder: &Folder) -> io::Result<()> {
    match fs::remove_dir_all(folder.join("record")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
