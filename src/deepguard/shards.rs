//! Base models that the GPUs of a machine share, as they are larger than one of them or leave it more room
//! so: each keeps a part of every block, and gets the others' from their memory when it computes with the
//! block. Bits are those of a GPU that keeps all.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cuda::{Cuda, Share, ShareHandle};
use crate::dist::World;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::model::block::matrix_shapes;
use crate::model::config::Config;
use crate::model::weights::expected_tensors;
use crate::ops::Device;
use crate::platform;

/// How many GPUs of a machine share a base model. As text: `auto`, `off` or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardBase {
    /// All, where one of them has no room for the whole of it.
    #[default]
    Auto,
    /// None.
    Off,
    /// So many each.
    Ranks(usize),
}

impl FromStr for ShardBase {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(ShardBase::Auto),
            ("off", _) => Ok(ShardBase::Off),
            (_, Ok(ranks)) if ranks > 0 => Ok(ShardBase::Ranks(ranks)),
            _ => Err("expected auto, off, or a number of ranks".to_owned()),
        }
    }
}

impl fmt::Display for ShardBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShardBase::Auto => f.write_str("auto"),
            ShardBase::Off => f.write_str("off"),
            ShardBase::Ranks(ranks) => ranks.fmt(f),
        }
    }
}

/// A rank's part of a base model, which others of its machine read.
pub struct BaseShares {
    cuda: Cuda,
    ranks: usize,
}

/// What a rank tells the others before they decide.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    choice: ShardBase,
    host: String,
    has_gpu: bool,
    /// Whether the whole model does not fit.
    lacks_room: bool,
}

/// Has the GPUs of each machine share a base model of this configuration, which is loaded on `cuda` next, if
/// they are to. Every rank calls it, also where it computes on a processor.
///
/// # Errors
/// Of kind `Usage` on all ranks: choices that differ, or a number of ranks that does not divide those of each
/// machine. Of kind `Device`: no memory, or none that reaches the other GPUs. Of kind `Cluster`: ranks that
/// are lost.
pub fn share_base(
    world: &mut World,
    cuda: Option<&Cuda>,
    model: &Config,
    choice: ShardBase,
) -> Result<Option<BaseShares>> {
    let own = Facts {
        choice,
        host: platform::host_name(),
        has_gpu: cuda.is_some(),
        lacks_room: cuda.is_some_and(|cuda| cuda.room_for(&expected_tensors(model)).is_err()),
    };
    let all = if world.is_alone() { vec![own] } else { told(world, &own)? };
    let group = match group(&all, world.rank()) {
        Ok(group) => group,
        Err(error) => return Err(world.agree(error)),
    };
    let (Some(cuda), Some(group)) = (cuda, group) else { return Ok(None) };
    let place = group.iter().position(|&rank| rank == world.rank()).unwrap_or(0);
    let shapes = matrix_shapes(model);
    let share = Share::new(cuda, &shapes, model.num_hidden_layers, place, group.len())?;
    let handles = world.all_gather("sharing the base model", &share.handle()?)?;
    let handles = group.iter().map(|&rank| ShareHandle::try_from(&handles[rank][..]));
    let handles = handles.collect::<std::result::Result<Vec<_>, _>>();
    share.open(&handles.kind(ErrorKind::Internal, || "a handle of another rank".into())?)?;
    Ok(Some(BaseShares { cuda: cuda.clone(), ranks: group.len() }))
}

fn told(world: &mut World, own: &Facts) -> Result<Vec<Facts>> {
    let complain = || "what ranks tell each other of their room".to_owned();
    let own = serde_json::to_vec(own).kind(ErrorKind::Internal, complain)?;
    let all = world.all_gather("sharing the base model", &own)?;
    let facts = all.iter().map(|bytes| serde_json::from_slice(bytes).kind(ErrorKind::Internal, complain));
    facts.collect()
}

/// The ranks that share a model with `rank`, which is one of them; `None` where it keeps the whole of it.
fn group(all: &[Facts], rank: usize) -> Result<Option<Vec<usize>>> {
    let choice = all[0].choice;
    if let Some(other) = all.iter().position(|facts| facts.choice != choice) {
        return Err(Error::usage(format!(
            "--shard-base: expected the same on all ranks, found {choice} on rank 0 and {} on rank {other}",
            all[other].choice
        )));
    }
    let of_host = |host: &str| -> Vec<usize> { (0..all.len()).filter(|&i| all[i].host == host).collect() };
    let own = of_host(&all[rank].host);
    match choice {
        ShardBase::Off | ShardBase::Ranks(1) => Ok(None),
        ShardBase::Auto => {
            let wanted = all.iter().any(|facts| facts.lacks_room) && all.iter().all(|facts| facts.has_gpu);
            Ok((wanted && own.len() > 1).then_some(own))
        }
        ShardBase::Ranks(size) => {
            if let Some(without) = all.iter().position(|facts| !facts.has_gpu) {
                return Err(Error::usage(format!(
                    "--shard-base {size}: expected ranks that compute on GPUs, found rank {without} on a processor, where \
                     ranks share the files of a model anyway; leave it out"
                )));
            }
            for facts in all {
                let ranks = of_host(&facts.host).len();
                if ranks % size != 0 {
                    return Err(Error::usage(format!(
                        "--shard-base {size}: expected a multiple of {size} ranks on each machine, found {ranks} on {}",
                        facts.host
                    )));
                }
            }
            let place = own.iter().position(|&other| other == rank).unwrap_or(0);
            Ok(own.chunks(size).nth(place / size).map(<[usize]>::to_vec))
        }
    }
}

impl BaseShares {
    /// Ranks that share the model.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// Bytes of the device's memory that its blocks take.
    pub fn bytes(&self) -> usize {
        self.cuda.shared_bytes().unwrap_or(0)
    }

    /// Waits until all ranks have loaded their parts.
    ///
    /// # Errors
    /// Of kind `Cluster`, if one is lost.
    pub fn wait_for_all(&self, world: &mut World) -> Result<()> {
        world.all_gather("loading of the base model", &[]).map(drop)
    }

    /// Ends the use of the others' parts, and waits until nobody uses this one, which may be freed then.
    ///
    /// # Errors
    /// Those of earlier work; of kind `Cluster`, if a rank is lost.
    pub fn finish(self, world: &mut World) -> Result<()> {
        self.cuda.close_shares()?;
        world.all_gather("end of the base model", &[]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(choice: ShardBase, host: &str, lacks_room: bool) -> Facts {
        Facts { choice, host: host.to_owned(), has_gpu: true, lacks_room }
    }

    fn of_all(all: &[Facts]) -> Vec<Option<Vec<usize>>> {
        (0..all.len()).map(|rank| group(all, rank).unwrap()).collect()
    }

    #[test]
    fn ranks_of_a_machine_share() {
        let by = |choice, full: usize| -> Vec<Facts> {
            let hosts = ["a", "b", "a", "a", "b", "a"].into_iter().enumerate();
            hosts.map(|(rank, host)| facts(choice, host, rank == full)).collect()
        };
        let none = vec![None; 6];
        assert_eq!(of_all(&by(ShardBase::Off, 1)), none);
        assert_eq!(of_all(&by(ShardBase::Ranks(1), 1)), none);
        assert_eq!(of_all(&by(ShardBase::Auto, 9)), none);
        let (a, b) = (Some(vec![0, 2, 3, 5]), Some(vec![1, 4]));
        let all = [&a, &b, &a, &a, &b, &a].map(Clone::clone);
        assert_eq!(of_all(&by(ShardBase::Auto, 4)), all);
        let (first, second) = (Some(vec![0, 2]), Some(vec![3, 5]));
        let two = [&first, &b, &first, &second, &b, &second].map(Clone::clone);
        assert_eq!(of_all(&by(ShardBase::Ranks(2), 9)), two);
        // Nobody to share with.
        assert_eq!(of_all(&[facts(ShardBase::Auto, "a", true)]), [None]);
    }

    #[test]
    fn choices_that_do_not_fit_are_told() {
        let said = |all: &[Facts]| group(all, 0).unwrap_err().to_string();
        let other = [facts(ShardBase::Auto, "a", false), facts(ShardBase::Off, "a", false)];
        assert!(said(&other).contains("found auto on rank 0 and off on rank 1"));
        let two = facts(ShardBase::Ranks(2), "a", false);
        let odd = said(&[two.clone(), two.clone(), facts(ShardBase::Ranks(2), "b", false)]);
        assert!(odd.contains("a multiple of 2 ranks on each machine, found 1 on b"), "{odd}");
        let processor = said(&[two.clone(), Facts { has_gpu: false, ..two }]);
        assert!(processor.contains("found rank 1 on a processor"), "{processor}");
        for text in ["0", "-1", "some", ""] {
            assert!(text.parse::<ShardBase>().is_err(), "{text}");
        }
        for text in ["auto", "off", "3"] {
            assert_eq!(text.parse::<ShardBase>().unwrap().to_string(), text);
        }
    }
}
