//! Graphs: nodes and what each of them follows.

use std::collections::{HashMap, HashSet};

use super::abi::{Handle, In, Out};
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::work::Work;
use super::{api, with_driver};

/// What a node does.
#[derive(Clone)]
pub enum Payload {
    /// Some work.
    Work(Work),
    /// Records an event.
    Record(Handle),
    /// Waits for an event.
    Wait(Handle),
}

impl Payload {
    /// `CUgraphNodeType`.
    pub fn node_type(&self) -> u32 {
        match self {
            Payload::Work(Work::Kernel(_)) => 0,
            Payload::Work(Work::Copy(_)) => 1,
            Payload::Work(Work::Fill(_)) => 2,
            Payload::Work(Work::Host(_)) => 3,
            Payload::Work(Work::Nothing | Work::Record(_) | Work::Free(_)) => 5,
            Payload::Wait(_) => 6,
            Payload::Record(_) => 7,
        }
    }
}

/// A node.
#[derive(Clone)]
pub struct Node {
    /// Its handle.
    pub handle: Handle,
    /// What it does.
    pub payload: Payload,
    /// The nodes before it.
    pub after: Vec<Handle>,
}

/// Parameter bytes, and pointers into them.
type ShownParams = (Box<[u8]>, Box<[u64]>);

/// A graph.
#[derive(Default)]
pub struct Graph {
    /// In the order they were added.
    pub nodes: Vec<Node>,
    /// What `cuGraphKernelNodeGetParams` showed.
    pub shown: HashMap<Handle, ShownParams>,
}

impl Graph {
    /// A node of this graph.
    pub fn node(&self, handle: Handle) -> Result<&Node> {
        self.nodes.iter().find(|node| node.handle == handle).ok_or(Status::INVALID_VALUE)
    }

    /// A node of this graph, to be changed.
    pub fn node_mut(&mut self, handle: Handle) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.handle == handle).ok_or(Status::INVALID_VALUE)
    }

    /// The given nodes and all that come before them.
    pub fn ancestors(&self, of: &[Handle]) -> HashSet<Handle> {
        let index: HashMap<Handle, &Node> = self.nodes.iter().map(|node| (node.handle, node)).collect();
        let mut found = HashSet::new();
        let mut open = of.to_vec();
        while let Some(handle) = open.pop() {
            if found.insert(handle)
                && let Some(node) = index.get(&handle)
            {
                open.extend_from_slice(&node.after);
            }
        }
        found
    }
}

/// Nodes in an order in which each comes after those it follows, or `None` where they follow each other in a
/// circle.
pub fn in_order(nodes: &[Node]) -> Option<Vec<usize>> {
    let index: HashMap<Handle, usize> = nodes.iter().enumerate().map(|(i, node)| (node.handle, i)).collect();
    let mut missing: Vec<usize> = nodes.iter().map(|node| node.after.len()).collect();
    let mut dependents = vec![Vec::new(); nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        for before in &node.after {
            dependents[*index.get(before)?].push(i);
        }
    }
    let mut order: Vec<usize> = (0..nodes.len()).filter(|i| missing[*i] == 0).collect();
    let mut next = 0;
    while let Some(&i) = order.get(next) {
        next += 1;
        for &dependent in &dependents[i] {
            missing[dependent] -= 1;
            if missing[dependent] == 0 {
                order.push(dependent);
            }
        }
    }
    (order.len() == nodes.len()).then_some(order)
}

impl Driver {
    /// An empty graph.
    pub fn new_graph(&mut self) -> Handle {
        let handle = self.new_handle(Kind::Graph);
        self.graphs.insert(handle, Graph::default());
        handle
    }

    /// A graph that exists.
    pub fn graph(&self, handle: Handle) -> Result<&Graph> {
        self.graphs.get(&handle).ok_or(Status::INVALID_VALUE)
    }

    /// A graph that exists, to be changed.
    pub fn graph_mut(&mut self, handle: Handle) -> Result<&mut Graph> {
        self.graphs.get_mut(&handle).ok_or(Status::INVALID_VALUE)
    }

    /// Forgets a graph.
    pub fn remove_graph(&mut self, handle: Handle) -> bool {
        let Some(graph) = self.graphs.remove(&handle) else { return false };
        for node in graph.nodes {
            self.nodes.remove(&node.handle);
        }
        true
    }

    /// Adds a node that follows others of the same graph.
    pub fn add_node(&mut self, graph: Handle, after: &[Handle], payload: Payload) -> Result<Handle> {
        for before in after {
            self.graph(graph)?.node(*before)?;
        }
        let mut sorted = after.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != after.len() {
            return Err(Status::INVALID_VALUE);
        }
        let handle = self.new_handle(Kind::Node);
        self.graph_mut(graph)?.nodes.push(Node { handle, payload, after: sorted });
        self.nodes.insert(handle, graph);
        Ok(handle)
    }

    /// A node of any graph.
    pub fn node(&self, handle: Handle) -> Result<&Node> {
        let graph = self.nodes.get(&handle).ok_or(Status::INVALID_VALUE)?;
        self.graph(*graph)?.node(handle)
    }

    /// A node of any graph, to be changed.
    pub fn node_mut(&mut self, handle: Handle) -> Result<&mut Node> {
        let graph = *self.nodes.get(&handle).ok_or(Status::INVALID_VALUE)?;
        self.graph_mut(graph)?.node_mut(handle)
    }

    fn destroy_node(&mut self, handle: Handle) -> Result {
        let graph = self.nodes.remove(&handle).ok_or(Status::INVALID_VALUE)?;
        let graph = self.graph_mut(graph)?;
        graph.nodes.retain(|node| node.handle != handle);
        graph.nodes.iter_mut().for_each(|node| node.after.retain(|before| *before != handle));
        graph.shown.remove(&handle);
        Ok(())
    }

    fn clone_graph(&mut self, original: Handle) -> Result<Handle> {
        let nodes = self.graph(original)?.nodes.clone();
        let order = in_order(&nodes).ok_or(Status::INVALID_VALUE)?;
        let copy = self.new_graph();
        let mut renamed = HashMap::new();
        for i in order {
            let after: Vec<Handle> = nodes[i].after.iter().map(|before| renamed[before]).collect();
            let node = self.add_node(copy, &after, nodes[i].payload.clone())?;
            renamed.insert(nodes[i].handle, node);
        }
        Ok(copy)
    }
}

/// Writes handles into an array of C, or only their number where the array is null.
fn list(handles: &[Handle], out: Out<Handle>, count: Out<usize>) -> Result {
    if out.is_null() {
        return count.set(handles.len());
    }
    let room = count.get()?;
    let written = handles.len().min(room);
    let padding = std::iter::repeat_n(0, room - written);
    out.set_all(handles.iter().copied().take(written).chain(padding))?;
    count.set(written)
}

fn edit_edges(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize, add: bool) -> Result {
    let pairs: Vec<_> = from.all(count)?.into_iter().zip(to.all(count)?).collect();
    with_driver(|driver| {
        let graph = driver.graph_mut(graph)?;
        for (before, node) in pairs {
            graph.node(before)?;
            let after = &mut graph.node_mut(node)?.after;
            match after.iter().position(|handle| *handle == before) {
                None if add && before != node => after.push(before),
                Some(position) if !add => drop(after.remove(position)),
                _ => return Err(Status::INVALID_VALUE),
            }
        }
        Ok(())
    })
}

fn get_dependencies(node: Handle, out: Out<Handle>, count: Out<usize>) -> Result {
    with_driver(|driver| list(&driver.node(node)?.after, out, count))
}

fn get_dependents(node: Handle, out: Out<Handle>, count: Out<usize>) -> Result {
    with_driver(|driver| {
        driver.node(node)?;
        let graph = driver.graph(driver.nodes[&node])?;
        let dependents: Vec<Handle> =
            graph.nodes.iter().filter(|n| n.after.contains(&node)).map(|n| n.handle).collect();
        list(&dependents, out, count)
    })
}

fn get_edges(graph: Handle, from: Out<Handle>, to: Out<Handle>, count: Out<usize>) -> Result {
    with_driver(|driver| {
        let nodes = &driver.graph(graph)?.nodes;
        let edges = nodes.iter().flat_map(|node| node.after.iter().map(|before| (*before, node.handle)));
        let (befores, afters): (Vec<Handle>, Vec<Handle>) = edges.unzip();
        if from.is_null() != to.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let room = if from.is_null() { 0 } else { count.get()? };
        list(&befores, from, count)?;
        if !to.is_null() {
            count.set(room)?;
            list(&afters, to, count)?;
        }
        Ok(())
    })
}

api! {
    fn cuGraphCreate(out: Out<Handle>, flags: u32) {
        out.check()?;
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        with_driver(|driver| out.set(driver.new_graph()))
    }

    fn cuGraphDestroy(graph: Handle) {
        with_driver(|driver| {
            let captured = driver.captures.values().any(|capture| capture.graph == graph);
            if captured || !driver.remove_graph(graph) {
                return Err(Status::INVALID_VALUE);
            }
            Ok(())
        })
    }

    fn cuGraphClone(out: Out<Handle>, original: Handle) {
        out.check()?;
        with_driver(|driver| out.set(driver.clone_graph(original)?))
    }

    fn cuGraphDestroyNode(node: Handle) {
        with_driver(|driver| driver.destroy_node(node))
    }

    fn cuGraphGetNodes(graph: Handle, out: Out<Handle>, count: Out<usize>) {
        with_driver(|driver| {
            let nodes: Vec<Handle> = driver.graph(graph)?.nodes.iter().map(|node| node.handle).collect();
            list(&nodes, out, count)
        })
    }

    fn cuGraphGetRootNodes(graph: Handle, out: Out<Handle>, count: Out<usize>) {
        with_driver(|driver| {
            let nodes = driver.graph(graph)?.nodes.iter();
            let roots: Vec<Handle> = nodes.filter(|n| n.after.is_empty()).map(|n| n.handle).collect();
            list(&roots, out, count)
        })
    }

    fn cuGraphGetEdges(graph: Handle, from: Out<Handle>, to: Out<Handle>, count: Out<usize>) {
        get_edges(graph, from, to, count)
    }

    fn cuGraphGetEdges_v2(graph: Handle, from: Out<Handle>, to: Out<Handle>, data: Out<u64>, count: Out<usize>) {
        get_edges(graph, from, to, count)?;
        clear_edge_data(data, from, count)
    }

    fn cuGraphNodeGetDependencies(node: Handle, out: Out<Handle>, count: Out<usize>) {
        get_dependencies(node, out, count)
    }

    fn cuGraphNodeGetDependencies_v2(node: Handle, out: Out<Handle>, data: Out<u64>, count: Out<usize>) {
        get_dependencies(node, out, count)?;
        clear_edge_data(data, out, count)
    }

    fn cuGraphNodeGetDependentNodes(node: Handle, out: Out<Handle>, count: Out<usize>) {
        get_dependents(node, out, count)
    }

    fn cuGraphNodeGetDependentNodes_v2(node: Handle, out: Out<Handle>, data: Out<u64>, count: Out<usize>) {
        get_dependents(node, out, count)?;
        clear_edge_data(data, out, count)
    }

    fn cuGraphNodeGetType(node: Handle, out: Out<u32>) {
        with_driver(|driver| out.set(driver.node(node)?.payload.node_type()))
    }

    fn cuGraphAddDependencies(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize) {
        edit_edges(graph, from, to, count, true)
    }

    fn cuGraphAddDependencies_v2(
        graph: Handle, from: In<Handle>, to: In<Handle>, data: In<u64>, count: usize,
    ) {
        check_edge_data(data, count)?;
        edit_edges(graph, from, to, count, true)
    }

    fn cuGraphRemoveDependencies(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize) {
        edit_edges(graph, from, to, count, false)
    }

    fn cuGraphRemoveDependencies_v2(
        graph: Handle, from: In<Handle>, to: In<Handle>, data: In<u64>, count: usize,
    ) {
        check_edge_data(data, count)?;
        edit_edges(graph, from, to, count, false)
    }
}

/// Edges carry no data here; eight bytes of zeros say so.
fn clear_edge_data(data: Out<u64>, nodes: Out<Handle>, count: Out<usize>) -> Result {
    if data.is_null() || nodes.is_null() {
        return Ok(());
    }
    data.set_all(std::iter::repeat_n(0, count.get()?))
}

fn check_edge_data(data: In<u64>, count: usize) -> Result {
    if data.is_null() || data.all(count)?.iter().all(|bits| *bits == 0) {
        return Ok(());
    }
    super::unsupported("an edge with data (programmatic dependent launch) in a graph")
}
