//! Which mutants are tried: of some modules, a sample, a share.

use clap::Args;

use crate::{modules, site::Mutant};

/// A choice.
#[derive(Clone, Debug, Default, Args)]
pub struct Chosen {
    /// Only those of this module; may be given several times
    #[arg(long, value_parser = module)]
    module: Vec<String>,
    /// So many of each module, the same ones each time
    #[arg(long)]
    sample: Option<usize>,
    /// The share K of N, as in 1/4
    #[arg(long, value_parser = shard)]
    shard: Option<(usize, usize)>,
}

fn module(name: &str) -> Result<String, String> {
    if modules::ALL.iter().any(|module| module.name == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = modules::ALL.iter().map(|module| module.name).collect();
    Err(format!("one of {}", names.join(", ")))
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    parts.filter(|(k, n)| (1..=*n).contains(k)).ok_or_else(|| "a share is K/N, with K from 1 to N".to_owned())
}

impl Chosen {
    /// The chosen ones, in an order that is the same each time and mixes them, so that a run that is stopped is a sample.
    #[must_use]
    pub fn of<'a>(&self, mutants: &'a [Mutant]) -> Vec<&'a Mutant> {
        let mut chosen: Vec<&Mutant> = Vec::new();
        for module in modules::ALL {
            if !self.module.is_empty() && !self.module.iter().any(|name| name == module.name) {
                continue;
            }
            let mut own: Vec<&Mutant> =
                mutants.iter().filter(|mutant| mutant.module == module.name).collect();
            own.sort_by_key(|mutant| hash(&mutant.key));
            own.truncate(self.sample.unwrap_or(usize::MAX));
            chosen.extend(own);
        }
        chosen.sort_by_key(|mutant| hash(&mutant.key));
        let (k, n) = self.shard.unwrap_or((1, 1));
        chosen.into_iter().skip(k - 1).step_by(n).collect()
    }
}

/// FNV-1a: a number that the key alone decides.
fn hash(key: &str) -> u64 {
    key.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::{Chosen, shard};
    use crate::site::Mutant;

    #[test]
    fn shares_are_apart_and_make_up_the_whole() {
        let mutant =
            |nr: u32| Mutant { id: nr, module: "rw", key: nr.to_string(), line: 1, text: String::new() };
        let mutants: Vec<Mutant> = (1..=10).map(mutant).collect();
        let of = |shard| {
            Chosen { shard: Some(shard), ..Chosen::default() }.of(&mutants).iter().map(|m| m.id).collect()
        };
        let mut all: Vec<u32> =
            [(1, 3), (2, 3), (3, 3)].into_iter().flat_map(|part| -> Vec<u32> { of(part) }).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=10).collect::<Vec<_>>());
        assert_eq!(Chosen { sample: Some(4), ..Chosen::default() }.of(&mutants).len(), 4);
        assert!(shard("0/3").is_err() && shard("4/3").is_err() && shard("3/3").is_ok());
    }
}
