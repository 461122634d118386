//! Requests and answers. Both are JSON objects; each has a version, which a change that an older page could not read raises.
//!
//! | `do` | takes | gives |
//! |---|---|---|
//! | `hello` | – | version, scenarios, lessons, topics of the quiz |
//! | `flight` | `scenario`, or `script` and `size` or `taken` | a [`Flight`](crate::Flight) |
//! | `listing` | `script`, `machine`, `size` or `taken` | the text of a recording |
//! | `export` | as `listing`, `format`: `chrome`, `ftrace`, `json`, `markdown` | text |
//! | `lesson` | `number`, `mutant` | what was measured, and the flight |
//! | `crash` | `script`, `without`, `order`, `seed` | all crash states, and what check and repair say |
//! | `image` | `sample`, or nothing for the image that was taken | geometry, groups, tree, findings |
//! | `grow` | `number` | an image with a file of so many blocks |
//! | `structure` | `what` | bytes and fields of a structure |
//! | `block` | `number` | bytes and fields of a block, by what it is used for |
//! | `file` | `ino` | pointers and 2 MiB units of a file |
//! | `set` | `what`, `field`, `value` | the image again |
//! | `mend` | `all`, or only what needs no question | what was mended, what it stopped at, and the image again |
//! | `quiz` | `seed`, `topic` | a question with an image in which a fault is hidden |
//!
//! An answer has `ok` with what is given, or `error` with a sentence.

use serde::{Deserialize, Serialize};

use crate::lesson::{self, LESSONS};
use crate::machines::{IMAGE_SIZE, Machine, empty_image, standard};
use crate::{crash, export, flight, image, quiz, scenario};

/// The version of requests and answers.
pub const VERSION: u32 = 1;

/// Bytes of the largest image that is taken; three machines need three copies.
const LARGEST: u64 = 512 << 20;

/// What a request says. What one does not need is left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    version: Option<u32>,
    r#do: String,
    scenario: Option<String>,
    script: Option<String>,
    size: Option<u64>,
    taken: bool,
    machine: Option<String>,
    format: Option<String>,
    number: u64,
    mutant: bool,
    without: Vec<String>,
    order: Option<String>,
    sample: Option<String>,
    what: Option<String>,
    ino: u32,
    field: Option<String>,
    value: Option<String>,
    seed: u64,
    topic: Option<String>,
    all: bool,
}

#[derive(Serialize)]
struct Hello {
    scenarios: Vec<ScenarioLine>,
    lessons: &'static [lesson::Lesson],
    topics: &'static [&'static str],
    samples: Vec<image::SampleLine>,
    crash_script: &'static str,
}

#[derive(Serialize)]
struct ScenarioLine {
    id: &'static str,
    title: &'static str,
    script: &'static str,
    size: u64,
}

/// The engine: what it keeps from one request to the next is an image.
#[derive(Debug, Default)]
pub struct Lab {
    image: Option<image::Held>,
}

impl Lab {
    /// An engine without an image.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of an image, which the next requests are about.
    pub fn take_image(&mut self, bytes: Vec<u8>) {
        self.image = Some(image::Held::new(bytes));
    }

    /// The bytes of the file system that is held, as requests left it; none without one.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.image.as_ref().map(image::Held::bytes).unwrap_or_default()
    }

    /// Answers one request. Never fails: what is wrong is in the answer.
    pub fn call(&mut self, request: &[u8]) -> Vec<u8> {
        let answer = match serde_json::from_slice::<Request>(request) {
            Ok(request) => self.answer(&request),
            Err(error) => Err(format!("the request is not understood: {error}")),
        };
        let text = match answer {
            Ok(given) => format!("{{\"version\":{VERSION},\"ok\":{given}}}"),
            Err(error) => serde_json::json!({ "version": VERSION, "error": error }).to_string(),
        };
        text.into_bytes()
    }

    fn answer(&mut self, request: &Request) -> Result<String, String> {
        if let Some(version) = request.version.filter(|version| *version != VERSION) {
            return Err(format!("the page speaks version {version}, the engine version {VERSION}"));
        }
        match request.r#do.as_str() {
            "hello" => json(&hello()),
            "flight" => {
                let (script, image) = self.flown(request)?;
                json(&flight::fly(&script, &image, &standard())?)
            }
            "listing" => {
                let (script, image) = self.flown(request)?;
                json(&flight::listing(&script, &image, &machine(request)?)?)
            }
            "export" => {
                let (script, image) = self.flown(request)?;
                let format = request.format.as_deref().unwrap_or("chrome");
                json(&export::text(&script, &image, &machine(request)?, format)?)
            }
            "lesson" => {
                let number = usize::try_from(request.number).unwrap_or_default();
                json(&lesson::run(number, request.mutant)?)
            }
            "crash" => {
                let script = request.script.as_deref().unwrap_or(crash::SCRIPT);
                let order = request.order.as_deref().unwrap_or("lines");
                json(&crash::run(script, &request.without, order, request.seed)?)
            }
            "quiz" => {
                let topic = request.topic.as_deref();
                let (question, bytes) = quiz::ask(request.seed, topic)?;
                self.image = Some(image::Held::new(bytes));
                json(&question)
            }
            "image" => {
                if let Some(sample) = &request.sample {
                    self.image = Some(image::Held::new(image::sample(sample)?));
                }
                json(&self.held()?.overview()?)
            }
            "grow" => {
                self.image = Some(image::Held::new(image::grown(request.number)?));
                json(&self.held()?.overview()?)
            }
            "structure" => {
                let what = request.what.as_deref().unwrap_or_default();
                json(&self.held()?.structure(what)?)
            }
            "block" => json(&self.held()?.block(request.number)?),
            "file" => json(&self.held()?.file(request.ino)?),
            "set" => {
                let (what, field) = (request.what.as_deref(), request.field.as_deref());
                let value = request.value.as_deref().unwrap_or_default();
                self.held()?.set(what.unwrap_or_default(), field.unwrap_or_default(), value)?;
                json(&self.held()?.overview()?)
            }
            "mend" => {
                let mended = self.held()?.mend(request.all)?;
                let image = self.held()?.overview()?;
                json(
                    &serde_json::json!({ "mended": mended.lines, "stopped": mended.stopped, "image": image }),
                )
            }
            other => Err(format!("{other:?} is no request")),
        }
    }

    fn held(&self) -> Result<&image::Held, String> {
        self.image.as_ref().ok_or_else(|| "there is no image yet".to_owned())
    }

    /// The script and the image of a flight.
    fn flown(&self, request: &Request) -> Result<(String, Vec<u8>), String> {
        let known = match &request.scenario {
            Some(id) => Some(scenario::find(id).ok_or_else(|| format!("there is no scenario {id:?}"))?),
            None => None,
        };
        let script = match (&request.script, known) {
            (Some(script), _) => script.clone(),
            (None, Some(known)) => known.script.to_owned(),
            (None, None) => return Err("a scenario or a script is wanted".into()),
        };
        if request.taken {
            return Ok((script, self.held()?.bytes()));
        }
        let size = request.size.or(known.map(|known| known.image)).unwrap_or(IMAGE_SIZE);
        if size > LARGEST {
            return Err(format!("an image here has at most {LARGEST} bytes"));
        }
        Ok((script, empty_image(size)?))
    }
}

fn json(given: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(given).map_err(|error| error.to_string())
}

fn machine(request: &Request) -> Result<Machine, String> {
    let id = request.machine.as_deref().unwrap_or("e2dax");
    let mut known = standard().into_iter();
    known.find(|machine| machine.id == id).ok_or_else(|| format!("there is no machine {id:?}"))
}

fn hello() -> Hello {
    let line = |scenario: &scenario::Scenario| ScenarioLine {
        id: scenario.id,
        title: scenario.title,
        script: scenario.script,
        size: scenario.image,
    };
    Hello {
        scenarios: scenario::SCENARIOS.iter().map(line).collect(),
        lessons: &LESSONS,
        topics: &quiz::TOPICS,
        samples: image::samples(),
        crash_script: crash::SCRIPT,
    }
}
