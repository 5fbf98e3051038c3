//! Commands whose work ranks share by leases: each rank loads the model, rank 0 leases the units.

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::expert::FoundExpert;
use super::ranks::{RanksArgs, share_of_cores};
use super::say::{leave_it_to_rank_0, note};
use super::signals::Signals;
use super::spawn::{self, Success};
use super::terminal::ReaderGone;
use super::{Guard, ModelArgs, kind, on_threads};
use crate::adapter::AdapterFolder;
use crate::deepguard::DeepGuard;
use crate::dist::Crew;
use crate::dist::leases::Facts;
use crate::error::{Context, Error, ErrorKind};
use crate::manifest;
use crate::ops::Backend;

/// Files of a model beside its weights that change what is computed.
const MODEL_FILES: [&str; 4] =
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/// Bytes of options that are shown where they differ; of longer ones, a hash.
const MOST_SHOWN: usize = 4096;

/// Starts the ranks, or does `work` as one of them, with the model on its device.
pub(super) fn run(
    ranks: &RanksArgs,
    model: &ModelArgs,
    (threads, signals): (Option<usize>, &Signals),
    work: impl FnOnce(&Crew, &ModelArgs) -> Result<()> + Send,
) -> Result<()> {
    ranks.refuse_collectives()?;
    let launch = ranks.launch()?;
    if let Some(nproc) = ranks.nproc {
        return spawn::run(nproc, &launch, signals, Success::OfFirst);
    }
    let threads = threads.or_else(|| share_of_cores(&launch));
    on_threads(threads, || {
        if launch.rank > 0 {
            leave_it_to_rank_0();
        }
        let device = model.device.of_rank(&launch);
        let (crew, device) = ranks.join_crew(launch, device, &note)?;
        if crew.is_first() && !crew.is_alone() {
            note(&format!("{} ranks, of which this is the first", crew.ranks()));
        }
        match work(&crew, &ModelArgs { device, ..model.clone() }) {
            Ok(()) => Ok(crew.finish()?),
            // Nobody has failed, and nobody needs what the others compute.
            Err(error) if ReaderGone::is_cause_of(error.as_ref()) => {
                crew.finish()?;
                Err(error)
            }
            Err(error) => {
                crew.leave(&Error::new(kind(&error), format!("{error:#}")));
                Err(error)
            }
        }
    })
}

/// What has to be the same on all ranks: the device, the model, what is attached to it, and `options`.
/// Nothing is read for a rank on its own.
pub(super) fn facts<B: Backend>(
    crew: &Crew,
    model: &ModelArgs,
    guard: &DeepGuard<B>,
    expert: Option<&FoundExpert>,
    options: &str,
) -> Result<Facts> {
    if crew.is_alone() {
        return Ok(Facts::new());
    }
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    let mut facts = vec![
        ("device".to_owned(), guard.model.backend.description()),
        ("weights of the model".to_owned(), guard.model.weights_hash().to_hex().to_string()),
    ];
    for name in MODEL_FILES {
        let found = std::fs::read(guard.model.dir().join(name));
        facts.push((format!("{name} of the model"), found.map_or("none".to_owned(), |bytes| hash(&bytes))));
    }
    if let Some(model) = guard.expert.as_ref().and_then(|expert| expert.model.as_ref()) {
        facts.push(("weights of the expert".to_owned(), model.weights_hash().to_hex().to_string()));
    }
    let adapter = model.adapter(Guard::Unused)?;
    let folders = [
        ("adapter", adapter.as_ref().map(AdapterFolder::path)),
        ("adapter of the expert", expert.map(|expert| &*expert.adapter)),
    ];
    for (name, folder) in folders {
        let hash = folder.map_or(Ok("none".to_owned()), manifest::fingerprint)?;
        facts.push((name.to_owned(), hash));
    }
    let options = if options.len() > MOST_SHOWN { hash(options.as_bytes()) } else { options.to_owned() };
    facts.push(("options".to_owned(), options));
    Ok(facts)
}

/// What ranks tell each other of a unit.
pub(super) fn to_bytes(value: &impl Serialize) -> crate::Result<Vec<u8>> {
    serde_json::to_vec(value).kind(ErrorKind::Internal, || "a unit of work".into())
}

/// What [`to_bytes`] has made.
pub(super) fn of_bytes<T: DeserializeOwned>(bytes: &[u8]) -> crate::Result<T> {
    serde_json::from_slice(bytes).kind(ErrorKind::Internal, || "a unit of work".into())
}
