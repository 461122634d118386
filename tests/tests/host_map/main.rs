//! Files of an image in this process's own memory: every way in which they can be mapped, beside what is expected of DAX.
#![cfg(target_os = "linux")]

mod budget;
mod crashed;
mod ends;
mod holes;
mod huge;
mod in_flight;
mod killed;
mod limits;
mod oracle;
mod private;
mod races;
mod rights;
mod room;
mod same;
mod setup;
mod shared;
mod simulated;
mod syncs;
mod told;
mod tracking;
