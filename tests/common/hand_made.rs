//! Evaluations made by hand: six scenarios of three families, and runs whose verdicts are written down.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deepguard::eval::environment::Environment;
use deepguard::eval::references::Excluded;
use deepguard::eval::samples::{SampleLine, VerdictLine};
use deepguard::eval::seal::{Judgement, Seal, seal};
use deepguard::eval::suite::{Suite, harness_hash};
use deepguard::eval::verdict::{Functional, Secure, Verdict};

/// Two scenarios each; no training pair is of the last family.
const FAMILIES: [&str; 3] = ["python/cwe-078", "python/cwe-089", "python/cwe-117"];

/// What a sample is.
#[derive(Clone, Copy, PartialEq)]
pub enum Is {
    Secure,
    Insecure,
    Broken,
    Unparsed,
    Unknown,
}

impl Is {
    pub fn verdict(self) -> Verdict {
        let (parsed, functional, secure, reason) = match self {
            Is::Secure => (Some(true), Functional::Pass, Secure::Yes, ""),
            Is::Insecure => (Some(true), Functional::Pass, Secure::No, "security.attack: Fail: it got in"),
            Is::Broken => {
                (Some(true), Functional::Fail, Secure::Unknown, "functional.works: Fail: it does not")
            }
            Is::Unparsed => (Some(false), Functional::Fail, Secure::Unknown, "SyntaxError"),
            Is::Unknown => (Some(true), Functional::Unknown, Secure::Unknown, "the run did not end"),
        };
        Verdict { parsed, functional, secure, reason: reason.to_owned(), flaky: false }
    }
}

/// A temporary folder with a suite in `suite`.
pub struct HandMade {
    dir: tempfile::TempDir,
    pub suite: Suite,
}

impl HandMade {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/eval");
        copy(&data.join("harness"), &dir.path().join("suite/harness"));
        for family in FAMILIES {
            let mut scenarios: Vec<PathBuf> =
                std::fs::read_dir(data.join(family)).unwrap().map(|entry| entry.unwrap().path()).collect();
            scenarios.sort();
            for scenario in &scenarios[..2] {
                let name = scenario.strip_prefix(&data).unwrap();
                copy(scenario, &dir.path().join("suite").join(name));
            }
        }
        let suite = Suite::open(&dir.path().join("suite"), &[]).unwrap();
        assert_eq!(suite.scenarios.len(), 6);
        HandMade { dir, suite }
    }

    /// The suite as it is now.
    pub fn reopened(self) -> Self {
        let suite = Suite::open(&self.path("suite"), &[]).unwrap();
        HandMade { suite, ..self }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn id(&self, scenario: usize) -> String {
        self.suite.scenarios[scenario].meta.id.clone()
    }

    /// A sample and its verdict.
    pub fn lines(&self, scenario: usize, sample: u32, is: Is) -> (SampleLine, VerdictLine) {
        self.lines_of(scenario, sample, &format!("\n    return {sample}\n"), is.verdict())
    }

    pub fn lines_of(
        &self,
        scenario: usize,
        sample: u32,
        completion: &str,
        verdict: Verdict,
    ) -> (SampleLine, VerdictLine) {
        let (id, completion) = (self.id(scenario), completion.to_owned());
        let program = self.suite.scenarios[scenario].program(&completion);
        let program = blake3::hash(program.as_bytes()).to_hex().to_string();
        let verdict = VerdictLine { id: id.clone(), sample, program, key: String::new(), verdict };
        (SampleLine { id, sample, completion, tokens: None, finish: None, scores: None }, verdict)
    }

    /// Writes the folder `name` with these samples and verdicts.
    pub fn write(&self, name: &str, lines: &[(SampleLine, VerdictLine)]) -> PathBuf {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        let samples: String = lines.iter().map(|(sample, _)| json_line(sample)).collect();
        let verdicts: String = lines.iter().map(|(_, verdict)| json_line(verdict)).collect();
        std::fs::write(folder.join("samples.jsonl"), samples).unwrap();
        std::fs::write(folder.join("verdicts.jsonl"), verdicts).unwrap();
        folder
    }

    /// A sealed run of four samples a scenario.
    pub fn run(&self, name: &str, outcome: impl Fn(usize) -> [Is; 4]) -> Seal {
        let mut lines = Vec::new();
        for scenario in 0..6 {
            let of_scenario = outcome(scenario);
            lines.extend((0..4u32).map(|i| self.lines(scenario, i, of_scenario[i as usize])));
        }
        self.write(name, &lines);
        self.seal(name).unwrap()
    }

    pub fn seal(&self, name: &str) -> deepguard::Result<Seal> {
        self.seal_without(name, &Excluded::new())
    }

    pub fn seal_without(&self, name: &str, excluded: &Excluded) -> deepguard::Result<Seal> {
        let environment = Environment {
            deepguard: "0.1.0".to_owned(),
            python: "3.13.1".to_owned(),
            tools: BTreeMap::from([("gcc".to_owned(), "14.2.0".to_owned())]),
            ..Environment::default()
        };
        let harness = harness_hash(&self.suite.harness()?)?;
        let judgement =
            Judgement { suite: &self.suite, environment: &environment, harness: &harness, excluded };
        seal(&self.path(name), &judgement, None)
    }

    /// Runs of a base and of a guard, which does better in trained families and breaks the unseen one.
    pub fn base_and_guard(&self) -> [Seal; 2] {
        use Is::{Broken, Insecure, Secure};
        let base = self.run("base", |_| [Insecure, Insecure, Secure, Broken]);
        let guard = |scenario| match scenario {
            4 | 5 => [Broken; 4],
            _ => [Secure, Secure, Insecure, Broken],
        };
        [base, self.run("guard", guard)]
    }
}

fn json_line(line: &impl serde::Serialize) -> String {
    serde_json::to_string(line).unwrap() + "\n"
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
