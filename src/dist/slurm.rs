//! The lists in Slurm's variables: `node[0-1,3]` and `2(x3),1`.

use std::result::Result;

/// The last number of a step that `srun` starts; those beyond are the batch script, interactive shells and
/// other steps of Slurm's own.
pub(super) const LAST_STEP: usize = 0xffff_fff0;

/// More than any cluster has.
const MAX_NODES: usize = 1 << 16;

/// The names of a list of hosts: `a,node[0-1,3],r[1-2]n[08-10]-x`. At least one.
pub(super) fn hosts(list: &str) -> Result<Vec<String>, String> {
    let mut hosts = Vec::new();
    for pattern in split_outside(list)? {
        hosts.extend(expand(pattern)?);
        if hosts.len() > MAX_NODES {
            return Err(format!("expected at most {MAX_NODES} hosts"));
        }
    }
    Ok(hosts)
}

/// The parts between those commas that stand in no brackets.
fn split_outside(list: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, character) in list.char_indices() {
        match character {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return Err("expected brackets in pairs".to_owned()),
            ',' if !inside => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    match inside || parts.contains(&"") {
        true => Err("expected a list of hosts such as node[0-1,3]".to_owned()),
        false => Ok(parts),
    }
}

/// All names of one pattern, the last brackets running fastest.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = pattern.split_once('[') else { return Ok(vec![pattern.to_owned()]) };
    let (ranges, behind) = rest.split_once(']').ok_or("expected brackets in pairs")?;
    let behind = expand(behind)?;
    let mut names = Vec::new();
    for range in ranges.split(',') {
        for number in numbers(range)? {
            names.extend(behind.iter().map(|behind| format!("{before}{number}{behind}")));
            if names.len() > MAX_NODES {
                return Err(format!("expected at most {MAX_NODES} hosts"));
            }
        }
    }
    Ok(names)
}

/// `08-10` is 08, 09, 10; `3` is 3.
fn numbers(range: &str) -> Result<impl Iterator<Item = String>, String> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse::<u32>().ok()).flatten();
        number.ok_or_else(|| format!("expected a range of numbers instead of {range:?}"))
    };
    let (from, to, width) = (number(first)?, number(last)?, first.len());
    match from <= to {
        true => Ok((from..=to).map(move |number| format!("{number:0width$}"))),
        false => Err(format!("expected a range that rises instead of {range:?}")),
    }
}

/// The tasks of each node of `2(x3),1`.
pub(super) fn tasks_per_node(list: &str) -> Result<Vec<usize>, String> {
    let complaint = || "expected tasks of nodes such as 2(x3),1".to_owned();
    let mut nodes = Vec::new();
    for part in list.split(',') {
        let (tasks, times) = match part.split_once("(x") {
            Some((tasks, times)) => (tasks, times.strip_suffix(')').ok_or_else(complaint)?),
            None => (part, "1"),
        };
        let [tasks, times] = [tasks, times].map(|text| text.parse::<usize>().ok());
        let (tasks, times) = tasks.zip(times).ok_or_else(complaint)?;
        if nodes.len() + times > MAX_NODES {
            return Err(format!("expected at most {MAX_NODES} nodes"));
        }
        nodes.resize(nodes.len() + times, tasks);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_hosts_are_expanded() {
        for (list, names) in [
            ("gpu-07", "gpu-07"),
            ("node[0-1,3]", "node0 node1 node3"),
            ("a,node[08-10]-x,b", "a node08-x node09-x node10-x b"),
            ("r[1-2]n[1,3]", "r1n1 r1n3 r2n1 r2n3"),
        ] {
            assert_eq!(hosts(list).unwrap().join(" "), names, "{list}");
        }
        let wrong = ["", "a,", "node[", "node[]", "node[1-", "node[2-1]", "n]1[", "n[[1]]", "n[x]", "n[+1]"];
        for list in wrong.into_iter().chain(["n[0-4294967295]", "n[0-999]m[0-999]", "n[99999999999]"]) {
            assert!(hosts(list).is_err(), "{list}");
        }
    }

    #[test]
    fn tasks_of_nodes_are_counted() {
        assert_eq!(tasks_per_node("2(x3),1"), Ok(vec![2, 2, 2, 1]));
        assert_eq!(tasks_per_node("4"), Ok(vec![4]));
        for list in ["", "2(x3", "2x3", "2(x)", "-1", "1(x99999999)"] {
            assert!(tasks_per_node(list).is_err(), "{list}");
        }
    }
}
