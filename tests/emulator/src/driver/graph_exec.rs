//! Executable graphs.

use std::collections::HashMap;

use super::abi::{Handle, InstantiateParams, Out, UpdateResult};
use super::copy::Place;
use super::graph::{Node, Payload, in_order};
use super::queue::OpId;
use super::state::{Driver, Kind};
use super::status::{Result, Status};
use super::stream::with_stream;
use super::work::Work;
use super::{api, unsupported, with_context, with_driver};

/// `CUDA_GRAPH_INSTANTIATE_FLAG_…`: free on launch, upload, launch from the device, node priorities.
const AUTO_FREE: u64 = 1;
const UPLOAD: u64 = 2;
const DEVICE_LAUNCH: u64 = 4;
const NODE_PRIORITY: u64 = 8;

/// `CUgraphExecUpdateResult`: it worked, other nodes or edges, another kind of node, parameters of another
/// kind.
const UPDATED: u32 = 0;
const TOPOLOGY_CHANGED: u32 = 2;
const NODE_TYPE_CHANGED: u32 = 3;
const PARAMETERS_CHANGED: u32 = 5;

/// Marks the lanes of graph nodes, so that they are none of a stream.
const NODE_LANE: u64 = 1 << 63;

/// An executable graph.
pub struct GraphExec {
    /// Its nodes, in an order they can run in.
    pub nodes: Vec<Node>,
    /// Handles of the nodes that are switched off.
    pub disabled: Vec<Handle>,
    flags: u64,
    /// The end of the last launch, which the next one follows.
    last: Option<OpId>,
}

impl Driver {
    /// An executable graph that exists.
    pub fn exec(&mut self, handle: Handle) -> Result<&mut GraphExec> {
        self.execs.get_mut(&handle).ok_or(Status::INVALID_VALUE)
    }

    fn instantiate(&mut self, graph: Handle, flags: u64) -> Result<Handle> {
        if flags & !(AUTO_FREE | UPLOAD | DEVICE_LAUNCH | NODE_PRIORITY) != 0
            || flags & (AUTO_FREE | DEVICE_LAUNCH) == AUTO_FREE | DEVICE_LAUNCH
        {
            return Err(Status::INVALID_VALUE);
        }
        if flags & DEVICE_LAUNCH != 0 {
            return unsupported("launching a graph from the device");
        }
        let nodes = self.ordered_nodes(graph)?;
        let handle = self.new_handle(Kind::GraphExec);
        self.execs.insert(handle, GraphExec { nodes, disabled: Vec::new(), flags, last: None });
        Ok(handle)
    }

    fn ordered_nodes(&self, graph: Handle) -> Result<Vec<Node>> {
        let nodes = &self.graph(graph)?.nodes;
        let order = in_order(nodes).ok_or(Status::INVALID_VALUE)?;
        Ok(order.into_iter().map(|i| nodes[i].clone()).collect())
    }

    /// Queues all nodes, each after those it follows, between two operations of the stream.
    fn launch_graph(&mut self, exec: Handle, stream: Handle) -> Result {
        let state = self.exec(exec)?;
        let (nodes, disabled, last) = (state.nodes.clone(), state.disabled.clone(), state.last);
        if self.stream(stream)?.capture.is_some() {
            self.break_capture_of(stream);
            return unsupported("capturing the launch of a graph");
        }
        self.refuse_implicit_capture(stream)?;
        let context = self.stream(stream)?.context;
        let begin = self.enqueue(stream, last.as_slice(), Work::Nothing)?;
        let mut ops = HashMap::new();
        for node in &nodes {
            let mut after: Vec<OpId> = node.after.iter().map(|before| ops[before]).collect();
            after.push(begin);
            let programmatic: Vec<OpId> = node.programmatic.iter().map(|before| ops[before]).collect();
            let enabled = !disabled.contains(&node.handle);
            let op = self.launch_node(context, node, after, &programmatic, enabled);
            ops.insert(node.handle, op);
        }
        let all: Vec<OpId> = ops.into_values().collect();
        let end = self.enqueue(stream, &all, Work::Nothing)?;
        self.exec(exec)?.last = Some(end);
        Ok(())
    }

    fn launch_node(
        &mut self,
        context: Handle,
        node: &Node,
        mut after: Vec<OpId>,
        programmatic: &[OpId],
        enabled: bool,
    ) -> OpId {
        let work = match &node.payload {
            _ if !enabled => Work::Nothing,
            Payload::Work(work) => work.clone(),
            Payload::Record(event) => Work::Record(*event),
            Payload::Wait(event) => {
                after.extend(self.events.get(event).and_then(|event| event.record));
                Work::Nothing
            }
        };
        // Every node has a lane of its own, hence a random priority among those that are ready.
        let lane = NODE_LANE | self.new_handle(Kind::Node);
        let op = self.queue.push_programmatic(context, lane, &after, programmatic, work);
        if let (Payload::Record(event), true) = (&node.payload, enabled) {
            self.record_after(*event, op);
        }
        op
    }

    /// The kinds of memory that a copy goes to and comes from, which an update must not change.
    fn kinds(&self, node: &Node) -> Option<[bool; 2]> {
        let Payload::Work(Work::Copy(copy)) = &node.payload else { return None };
        let is_on_device = |place: &Place| match place {
            Place::Device(address) => !self.is_pinned(*address),
            Place::Host(_) | Place::Staged(_) => false,
        };
        Some([&copy.destination, &copy.source].map(|side| is_on_device(&side.place)))
    }

    /// Takes over the parameters of a graph that has the same shape.
    fn update(&mut self, exec_handle: Handle, graph: Handle) -> Result<UpdateResult> {
        let new = self.ordered_nodes(graph)?;
        let exec = self.execs.get(&exec_handle).ok_or(Status::INVALID_VALUE)?;
        let fail = |result, error_node, error_from| Ok(UpdateResult { result, error_node, error_from });
        if new.len() != exec.nodes.len() {
            return fail(TOPOLOGY_CHANGED, 0, 0);
        }
        let (old_shape, new_shape) = (shape(&exec.nodes), shape(&new));
        let [old_memory, new_memory] =
            [&exec.nodes, &new].map(|nodes| nodes.iter().map(|node| self.kinds(node)).collect::<Vec<_>>());
        for (i, (old, new)) in exec.nodes.iter().zip(&new).enumerate() {
            if old_shape[i] != new_shape[i] {
                return fail(TOPOLOGY_CHANGED, old.handle, new.handle);
            }
            if old.payload.node_type() != new.payload.node_type() {
                return fail(NODE_TYPE_CHANGED, old.handle, new.handle);
            }
            if old_memory[i] != new_memory[i] {
                return fail(PARAMETERS_CHANGED, old.handle, new.handle);
            }
        }
        let exec = self.exec(exec_handle)?;
        for (old, new) in exec.nodes.iter_mut().zip(new) {
            old.payload = new.payload;
        }
        fail(UPDATED, 0, 0)
    }
}

/// For each node the positions of those it follows, and whether it waits for their end.
fn shape(nodes: &[Node]) -> Vec<Vec<(usize, bool)>> {
    let position: HashMap<Handle, usize> = nodes.iter().enumerate().map(|(i, n)| (n.handle, i)).collect();
    let positions = |node: &Node| {
        let waits = |before| !node.programmatic.contains(before);
        let mut after: Vec<(usize, bool)> =
            node.after.iter().map(|before| (position[before], waits(before))).collect();
        after.sort_unstable();
        after
    };
    nodes.iter().map(positions).collect()
}

fn update_failed(result: u32) -> Result {
    if result == UPDATED { Ok(()) } else { Err(Status::GRAPH_EXEC_UPDATE_FAILURE) }
}

api! {
    fn cuGraphInstantiateWithFlags(out: Out<Handle>, graph: Handle, flags: u64) {
        out.check()?;
        with_context(|driver, _| out.set(driver.instantiate(graph, flags)?))
    }

    fn cuGraphInstantiateWithParams(out: Out<Handle>, graph: Handle, params: Out<InstantiateParams>) {
        out.check()?;
        let mut values = params.get()?;
        (values.error_node, values.result) = (0, 0);
        let result = with_context(|driver, _| driver.instantiate(graph, values.flags));
        values.result = u32::from(result.is_err());
        params.set(values)?;
        out.set(result?)
    }

    fn cuGraphInstantiate_v2(
        out: Out<Handle>, graph: Handle, error_node: Out<Handle>, log: *mut std::ffi::c_char, len: usize,
    ) {
        out.check()?;
        error_node.set_if_wanted(0);
        if !log.is_null() && len > 0 {
            // SAFETY: the caller says that the log has room for `len` bytes.
            unsafe { log.write(0) };
        }
        with_context(|driver, _| out.set(driver.instantiate(graph, 0)?))
    }

    fn cuGraphExecDestroy(exec: Handle) {
        with_driver(|driver| driver.execs.remove(&exec).map(|_| ()).ok_or(Status::INVALID_VALUE))
    }

    fn cuGraphExecGetFlags(exec: Handle, out: Out<u64>) {
        with_driver(|driver| out.set(driver.exec(exec)?.flags))
    }

    fn cuGraphLaunch(exec: Handle, stream: Handle) {
        with_stream(stream, |driver, stream| driver.launch_graph(exec, stream))
    }

    fn cuGraphUpload(exec: Handle, stream: Handle) {
        with_stream(stream, |driver, _| driver.exec(exec).map(|_| ()))
    }

    fn cuGraphExecUpdate_v2(exec: Handle, graph: Handle, info: Out<UpdateResult>) {
        with_driver(|driver| {
            let result = driver.update(exec, graph)?;
            info.set_if_wanted(result);
            update_failed(result.result)
        })
    }

    fn cuGraphExecUpdate(exec: Handle, graph: Handle, error_node: Out<Handle>, result_out: Out<u32>) {
        with_driver(|driver| {
            let result = driver.update(exec, graph)?;
            error_node.set_if_wanted(result.error_from);
            result_out.set_if_wanted(result.result);
            update_failed(result.result)
        })
    }

    fn cuGraphNodeSetEnabled(exec: Handle, node: Handle, enabled: u32) {
        with_driver(|driver| {
            let exec = driver.exec(exec)?;
            if !exec.nodes.iter().any(|n| n.handle == node && n.payload.node_type() <= 2) {
                return Err(Status::INVALID_VALUE);
            }
            exec.disabled.retain(|handle| *handle != node);
            if enabled == 0 {
                exec.disabled.push(node);
            }
            Ok(())
        })
    }

    fn cuGraphNodeGetEnabled(exec: Handle, node: Handle, out: Out<u32>) {
        with_driver(|driver| {
            let exec = driver.exec(exec)?;
            if !exec.nodes.iter().any(|n| n.handle == node && n.payload.node_type() <= 2) {
                return Err(Status::INVALID_VALUE);
            }
            out.set(u32::from(!exec.disabled.contains(&node)))
        })
    }
}
