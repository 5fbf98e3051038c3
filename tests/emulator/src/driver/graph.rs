//! Graphs: nodes and what each of them follows.

use std::collections::{HashMap, HashSet};

use super::abi::{Handle, In, Out};
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::work::Work;
use super::{api, with_driver};

/// `CU_GRAPH_NODE_TYPE_KERNEL`.
pub const KERNEL_NODE: u32 = 0;
/// `CUgraphEdgeData` of an edge along which a kernel need not wait for the end of the one before: of type
/// `CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC`, from the port `CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC`.
const PROGRAMMATIC_EDGE: u64 = 1 << 16 | 1;

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
            Payload::Work(Work::Kernel(_)) => KERNEL_NODE,
            Payload::Work(Work::Copy(_)) => 1,
            Payload::Work(Work::Fill(_)) => 2,
            Payload::Work(Work::Host(_)) => 3,
            Payload::Work(Work::Nothing | Work::Record(_) | Work::Free(_) | Work::Outside(_)) => 5,
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
    /// Those of them whose end it need not wait for: a kernel's, which is one too.
    pub programmatic: Vec<Handle>,
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
        self.graph_mut(graph)?.nodes.push(Node { handle, payload, after: sorted, programmatic: Vec::new() });
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
        for node in &mut graph.nodes {
            node.after.retain(|before| *before != handle);
            node.programmatic.retain(|before| *before != handle);
        }
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
            let programmatic = nodes[i].programmatic.iter().map(|before| renamed[before]).collect();
            self.node_mut(node)?.programmatic = programmatic;
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

fn edit_edges(graph: Handle, from: In<Handle>, to: In<Handle>, programmatic: &[bool], add: bool) -> Result {
    let count = programmatic.len();
    let pairs: Vec<_> = from.all(count)?.into_iter().zip(to.all(count)?).collect();
    with_driver(|driver| {
        let graph = driver.graph_mut(graph)?;
        for ((before, node), &programmatic) in pairs.into_iter().zip(programmatic) {
            let from_kernel = graph.node(before)?.payload.node_type() == KERNEL_NODE;
            let node_mut = graph.node_mut(node)?;
            if programmatic && !(from_kernel && node_mut.payload.node_type() == KERNEL_NODE) {
                return Err(Status::INVALID_VALUE);
            }
            match node_mut.after.iter().position(|handle| *handle == before) {
                None if add && before != node => {
                    node_mut.after.push(before);
                    node_mut.programmatic.extend(programmatic.then_some(before));
                }
                Some(position) if !add && node_mut.programmatic.contains(&before) == programmatic => {
                    node_mut.after.remove(position);
                    node_mut.programmatic.retain(|handle| *handle != before);
                }
                _ => return Err(Status::INVALID_VALUE),
            }
        }
        Ok(())
    })
}

/// A node that another follows, that one, and the data of the edge.
type Edge = (Handle, Handle, u64);

impl Node {
    /// The edges to this node.
    fn edges(&self) -> impl Iterator<Item = Edge> {
        let data = |before| if self.programmatic.contains(before) { PROGRAMMATIC_EDGE } else { 0 };
        self.after.iter().map(move |before| (*before, self.handle, data(before)))
    }
}

/// Lists one end of edges, and their data, which must not be lost where there is any.
fn list_ends(
    edges: &[Edge],
    end: fn(&Edge) -> Handle,
    out: Out<Handle>,
    data: Out<u64>,
    count: Out<usize>,
) -> Result {
    if !out.is_null() && data.is_null() && edges.iter().any(|(.., data)| *data != 0) {
        return Err(Status::LOSSY_QUERY);
    }
    list(&edges.iter().map(end).collect::<Vec<_>>(), out, count)?;
    if !out.is_null() && !data.is_null() {
        data.set_all(edges.iter().map(|(.., data)| *data).take(count.get()?))?;
    }
    Ok(())
}

fn get_dependencies(node: Handle, out: Out<Handle>, data: Out<u64>, count: Out<usize>) -> Result {
    with_driver(|driver| {
        let edges: Vec<Edge> = driver.node(node)?.edges().collect();
        list_ends(&edges, |(before, ..)| *before, out, data, count)
    })
}

fn get_dependents(node: Handle, out: Out<Handle>, data: Out<u64>, count: Out<usize>) -> Result {
    with_driver(|driver| {
        driver.node(node)?;
        let nodes = &driver.graph(driver.nodes[&node])?.nodes;
        let edges: Vec<Edge> =
            nodes.iter().flat_map(Node::edges).filter(|(before, ..)| *before == node).collect();
        list_ends(&edges, |(_, after, _)| *after, out, data, count)
    })
}

fn get_edges(graph: Handle, from: Out<Handle>, to: Out<Handle>, data: Out<u64>, count: Out<usize>) -> Result {
    with_driver(|driver| {
        let edges: Vec<Edge> = driver.graph(graph)?.nodes.iter().flat_map(Node::edges).collect();
        if from.is_null() != to.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        let room = if from.is_null() { 0 } else { count.get()? };
        list_ends(&edges, |(before, ..)| *before, from, data, count)?;
        if !to.is_null() {
            count.set(room)?;
            list_ends(&edges, |(_, after, _)| *after, to, data, count)?;
        }
        Ok(())
    })
}

/// No data of edges.
fn no_data() -> Out<u64> {
    // SAFETY: null is allowed.
    unsafe { Out::new(std::ptr::null_mut()) }
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
        get_edges(graph, from, to, no_data(), count)
    }

    fn cuGraphGetEdges_v2(graph: Handle, from: Out<Handle>, to: Out<Handle>, data: Out<u64>, count: Out<usize>) {
        get_edges(graph, from, to, data, count)
    }

    fn cuGraphNodeGetDependencies(node: Handle, out: Out<Handle>, count: Out<usize>) {
        get_dependencies(node, out, no_data(), count)
    }

    fn cuGraphNodeGetDependencies_v2(node: Handle, out: Out<Handle>, data: Out<u64>, count: Out<usize>) {
        get_dependencies(node, out, data, count)
    }

    fn cuGraphNodeGetDependentNodes(node: Handle, out: Out<Handle>, count: Out<usize>) {
        get_dependents(node, out, no_data(), count)
    }

    fn cuGraphNodeGetDependentNodes_v2(node: Handle, out: Out<Handle>, data: Out<u64>, count: Out<usize>) {
        get_dependents(node, out, data, count)
    }

    fn cuGraphNodeGetType(node: Handle, out: Out<u32>) {
        with_driver(|driver| out.set(driver.node(node)?.payload.node_type()))
    }

    fn cuGraphAddDependencies(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize) {
        edit_edges(graph, from, to, &vec![false; count], true)
    }

    fn cuGraphAddDependencies_v2(
        graph: Handle, from: In<Handle>, to: In<Handle>, data: In<u64>, count: usize,
    ) {
        edit_edges(graph, from, to, &read_edge_data(data, count)?, true)
    }

    fn cuGraphRemoveDependencies(graph: Handle, from: In<Handle>, to: In<Handle>, count: usize) {
        edit_edges(graph, from, to, &vec![false; count], false)
    }

    fn cuGraphRemoveDependencies_v2(
        graph: Handle, from: In<Handle>, to: In<Handle>, data: In<u64>, count: usize,
    ) {
        edit_edges(graph, from, to, &read_edge_data(data, count)?, false)
    }
}

/// Which edges are programmatic.
fn read_edge_data(data: In<u64>, count: usize) -> Result<Vec<bool>> {
    if data.is_null() {
        return Ok(vec![false; count]);
    }
    let read = |data| match data {
        0 => Ok(false),
        PROGRAMMATIC_EDGE => Ok(true),
        _ => super::unsupported("an edge of a graph from the port of a kernel's launch order"),
    };
    data.all(count)?.into_iter().map(read).collect()
}
