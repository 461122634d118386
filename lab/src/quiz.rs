//! Questions, the same for the same seed: faults that are hidden in an image, and questions about block maps and faults
//! whose answers are computed, not written down.

mod hidden;
mod paging;
mod pointers;
mod random;

use serde::Serialize;

use random::Random;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The number that it grew from.
    pub seed: u64,
    /// What it is about, one of [`TOPICS`].
    pub topic: &'static str,
    /// What is asked.
    pub text: String,
    /// What could be the answer.
    pub choices: Vec<String>,
    /// Which is, counted from 0.
    pub right: usize,
    /// Why.
    pub explanation: String,
    /// Where the fault is, as a structure and a field: `inode:12`, `i_links_count`. Empty where none is hidden.
    pub place: (String, String),
}

/// What can be asked about.
pub const TOPICS: [&str; 7] =
    ["superblock", "groups", "bitmaps", "inodes", "directories", "pointers", "paging"];

/// The question of a seed, about `topic` or about what the seed chooses; and the image that it is about.
///
/// # Errors
/// There is no such topic.
pub fn ask(seed: u64, topic: Option<&str>) -> Result<(Question, Vec<u8>), String> {
    let mut random = Random::new(seed);
    let topic = match topic.filter(|topic| !topic.is_empty()) {
        None => random.choose(&TOPICS).copied().unwrap_or("inodes"),
        Some(wanted) => {
            let known = TOPICS.iter().copied().find(|topic| *topic == wanted);
            known.ok_or_else(|| format!("{wanted:?} is no topic: {}", TOPICS.join(", ")))?
        }
    };
    match topic {
        "pointers" => pointers::ask(seed, &mut random),
        "paging" => paging::ask(seed, &mut random),
        _ => hidden::ask(seed, topic, &mut random),
    }
}

/// `right` among `others`, in an order of the seed's: the choices, and where it is.
fn shuffled(random: &mut Random, right: String, others: Vec<String>) -> (Vec<String>, usize) {
    let mut choices: Vec<String> = Vec::new();
    for other in others {
        if other != right && !choices.contains(&other) && choices.len() < 4 {
            choices.push(other);
        }
    }
    let place = random.below(choices.len() as u64 + 1) as usize;
    choices.insert(place.min(choices.len()), right);
    (choices, place)
}
