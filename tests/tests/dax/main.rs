//! The data path as its users meet it: who may store where, what a lease promises, what a failing device leaves, the
//! edges of every number, and file systems and address spaces of somebody else's.

mod edges;
mod elsewhere;
mod first;
mod flat;
mod foreign_fs;
mod foreign_mmu;
mod leases;
mod nowait;
mod once_failed;
mod partitions;
mod permissions;
mod seam;
mod setup;
mod siblings;
mod sweep;
mod syncs;
mod threads;
mod torn_writes;
mod toy;
mod untold;
