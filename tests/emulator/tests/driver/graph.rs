//! Graphs made by hand.

use std::sync::Arc;

use cudarc::driver::{CudaContext, result, sys};

use crate::support::{Bytes, Code, code, context, outcomes, stream};

/// A graph of the test's own.
struct Graph {
    graph: sys::CUgraph,
    context: Arc<CudaContext>,
}

impl Graph {
    fn new(context: &Arc<CudaContext>) -> Graph {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the pointer is valid.
        unsafe { sys::cuGraphCreate(&mut graph, 0) }.result().expect("a graph");
        Graph { graph, context: Arc::clone(context) }
    }

    fn fill(&self, bytes: &Bytes, value: u8, after: &[sys::CUgraphNode]) -> sys::CUgraphNode {
        let mut node = std::ptr::null_mut();
        let parameters = fill_parameters(bytes, value);
        // SAFETY: the pointers are valid.
        unsafe {
            sys::cuGraphAddMemsetNode(
                &mut node,
                self.graph,
                after.as_ptr(),
                after.len(),
                &parameters,
                self.context.cu_ctx(),
            )
        }
        .result()
        .expect("a node");
        node
    }

    fn copy(&self, to: &Bytes, from: &Bytes, after: &[sys::CUgraphNode]) -> sys::CUgraphNode {
        let mut node = std::ptr::null_mut();
        let parameters = copy_parameters(to, from);
        let (count, context) = (after.len(), self.context.cu_ctx());
        // SAFETY: the pointers are valid.
        unsafe {
            sys::cuGraphAddMemcpyNode(&mut node, self.graph, after.as_ptr(), count, &parameters, context)
        }
        .result()
        .expect("a node");
        node
    }

    fn instantiate(&self) -> Exec {
        // SAFETY: the graph exists.
        Exec(
            unsafe { result::graph::instantiate(self.graph, sys::CUgraphInstantiate_flags(0)) }
                .expect("a graph"),
        )
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the graph is ours.
        unsafe { result::graph::destroy(self.graph) }.expect("destroyed");
    }
}

/// An executable graph.
struct Exec(sys::CUgraphExec);

impl Exec {
    fn launch(&self) {
        // SAFETY: the graph exists.
        unsafe { result::graph::launch(self.0, std::ptr::null_mut()) }.expect("launched");
    }

    fn update(&self, graph: &Graph) -> (Code, sys::CUgraphExecUpdateResult) {
        // SAFETY: zero is a valid result, and the graphs exist.
        unsafe {
            let mut info: sys::CUgraphExecUpdateResultInfo = std::mem::zeroed();
            (sys::cuGraphExecUpdate_v2(self.0, graph.graph, &mut info), info.result)
        }
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // SAFETY: the graph is ours.
        unsafe { result::graph::exec_destroy(self.0) }.expect("destroyed");
    }
}

fn copy_parameters(to: &Bytes, from: &Bytes) -> sys::CUDA_MEMCPY3D {
    sys::CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcHost: std::ptr::null(),
        srcDevice: from.address,
        srcArray: std::ptr::null_mut(),
        reserved0: std::ptr::null_mut(),
        srcPitch: 0,
        srcHeight: 0,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstHost: std::ptr::null_mut(),
        dstDevice: to.address,
        dstArray: std::ptr::null_mut(),
        reserved1: std::ptr::null_mut(),
        dstPitch: 0,
        dstHeight: 0,
        WidthInBytes: to.len,
        Height: 1,
        Depth: 1,
    }
}

fn fill_parameters(bytes: &Bytes, value: u8) -> sys::CUDA_MEMSET_NODE_PARAMS {
    sys::CUDA_MEMSET_NODE_PARAMS {
        dst: bytes.address,
        pitch: 0,
        value: value.into(),
        elementSize: 1,
        width: bytes.len,
        height: 1,
    }
}

#[test]
fn nodes_follow_their_dependencies_and_nothing_else() {
    let context = context();
    let (x, y) = (Bytes::new(1), Bytes::new(1));
    let ordered = Graph::new(&context);
    let one = ordered.fill(&x, 1, &[]);
    let two = ordered.fill(&x, 2, &[one]);
    ordered.copy(&y, &x, &[two]);
    let exec = ordered.instantiate();
    let values = outcomes(|| {
        exec.launch();
        y.first()
    });
    assert!(values.iter().all(|value| *value == 2), "{values:?}");

    let free = Graph::new(&context);
    free.fill(&x, 1, &[]);
    free.fill(&x, 2, &[]);
    let exec = free.instantiate();
    let values = outcomes(|| {
        exec.launch();
        x.first()
    });
    assert!(values.contains(&1) && values.contains(&2), "{values:?}");
}

#[test]
fn launches_of_one_graph_follow_each_other() {
    let context = context();
    let (x, y) = (Bytes::new(1), Bytes::new(1));
    let (a, b) = (stream(&context), stream(&context));
    let graph = Graph::new(&context);
    let one = graph.fill(&x, 1, &[]);
    let copy = graph.copy(&y, &x, &[one]);
    graph.fill(&x, 2, &[copy]);
    let exec = graph.instantiate();
    let values = outcomes(|| {
        // SAFETY: graph and streams exist.
        unsafe {
            result::graph::launch(exec.0, a.cu_stream()).expect("launched");
            result::graph::launch(exec.0, b.cu_stream()).expect("launched");
        }
        (x.first(), y.first())
    });
    assert!(values.iter().all(|values| *values == (2, 1)), "{values:?}");
}

#[test]
fn an_executable_graph_takes_new_parameters() {
    let context = context();
    let x = Bytes::new(1);
    let graph = Graph::new(&context);
    let node = graph.fill(&x, 1, &[]);
    let exec = graph.instantiate();
    let other = Graph::new(&context);
    other.fill(&x, 7, &[]);
    assert_eq!(exec.update(&other).0, Code::CUDA_SUCCESS);
    exec.launch();
    assert_eq!(x.first(), 7);
    let parameters = fill_parameters(&x, 9);
    // SAFETY: the pointers are valid.
    unsafe { sys::cuGraphExecMemsetNodeSetParams(exec.0, node, &parameters, context.cu_ctx()) }
        .result()
        .expect("set");
    exec.launch();
    assert_eq!(x.first(), 9);
    // The graph itself did not change.
    graph.instantiate().launch();
    assert_eq!(x.first(), 1);
}

#[test]
fn an_update_must_keep_the_shape() {
    let context = context();
    let (x, y) = (Bytes::new(1), Bytes::new(1));
    let graph = Graph::new(&context);
    let one = graph.fill(&x, 1, &[]);
    graph.fill(&y, 1, &[one]);
    let exec = graph.instantiate();
    use sys::CUgraphExecUpdateResult as Update;
    let failed = Code::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    let changed = Update::CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;

    let fewer = Graph::new(&context);
    fewer.fill(&x, 2, &[]);
    assert_eq!(exec.update(&fewer), (failed, changed));
    let unordered = Graph::new(&context);
    unordered.fill(&x, 2, &[]);
    unordered.fill(&y, 2, &[]);
    assert_eq!(exec.update(&unordered), (failed, changed));
    let kind = Graph::new(&context);
    let first = kind.fill(&x, 2, &[]);
    kind.copy(&y, &x, &[first]);
    assert_eq!(exec.update(&kind), (failed, Update::CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED));
    exec.launch();
    assert_eq!((x.first(), y.first()), (1, 1));
}

/// A copy from the host does not become one on the device, or the other way round.
#[test]
fn an_update_must_keep_the_kinds_of_memory() {
    let context = context();
    let (x, y, z) = (Bytes::new(1), Bytes::new(1), Bytes::new(1));
    // SAFETY: freed at the end.
    let pinned = unsafe { result::malloc_host(1, 0) }.expect("memory");
    let copy = |from: Option<&Bytes>, to: &Bytes| {
        let graph = Graph::new(&context);
        let (mut node, mut parameters) = (std::ptr::null_mut(), copy_parameters(to, from.unwrap_or(to)));
        if from.is_none() {
            parameters.srcMemoryType = sys::CUmemorytype::CU_MEMORYTYPE_HOST;
            parameters.srcHost = pinned;
        }
        let none = std::ptr::null();
        // SAFETY: the pointers are valid.
        unsafe { sys::cuGraphAddMemcpyNode(&mut node, graph.graph, none, 0, &parameters, context.cu_ctx()) }
            .result()
            .expect("a node");
        graph
    };
    let on_device = copy(Some(&x), &y).instantiate();
    let upload = copy(None, &y).instantiate();
    let failed = Code::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    let changed = sys::CUgraphExecUpdateResult::CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
    assert_eq!(on_device.update(&copy(None, &y)), (failed, changed));
    assert_eq!(upload.update(&copy(Some(&x), &y)), (failed, changed));
    assert_eq!(on_device.update(&copy(Some(&z), &y)).0, Code::CUDA_SUCCESS);
    assert_eq!(upload.update(&copy(None, &z)).0, Code::CUDA_SUCCESS);
    // SAFETY: allocated above; no copy has been started.
    unsafe { result::free_host(pinned) }.expect("freed");
}

#[test]
fn nodes_can_be_switched_off() {
    let context = context();
    let x = Bytes::new(1);
    let graph = Graph::new(&context);
    let one = graph.fill(&x, 1, &[]);
    let two = graph.fill(&x, 2, &[one]);
    let exec = graph.instantiate();
    // SAFETY: graph and node exist.
    unsafe { sys::cuGraphNodeSetEnabled(exec.0, two, 0) }.result().expect("off");
    exec.launch();
    assert_eq!(x.first(), 1);
    // SAFETY: graph and node exist.
    unsafe { sys::cuGraphNodeSetEnabled(exec.0, two, 1) }.result().expect("on");
    exec.launch();
    assert_eq!(x.first(), 2);
}

#[test]
fn graphs_are_looked_into() {
    let context = context();
    let x = Bytes::new(1);
    let graph = Graph::new(&context);
    let one = graph.fill(&x, 1, &[]);
    let two = graph.copy(&x, &x, &[one]);
    let mut count = 0;
    // SAFETY: the pointers are valid for the counts passed.
    unsafe {
        sys::cuGraphGetNodes(graph.graph, std::ptr::null_mut(), &mut count).result().expect("a number");
        assert_eq!(count, 2);
        let mut nodes = [std::ptr::null_mut(); 2];
        sys::cuGraphGetNodes(graph.graph, nodes.as_mut_ptr(), &mut count).result().expect("nodes");
        assert_eq!(nodes, [one, two]);
        let mut kind = sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_EMPTY;
        sys::cuGraphNodeGetType(two, &mut kind).result().expect("a type");
        assert_eq!(kind, sys::CUgraphNodeType::CU_GRAPH_NODE_TYPE_MEMCPY);
        let mut parameters = fill_parameters(&x, 0);
        sys::cuGraphMemsetNodeGetParams(one, &mut parameters).result().expect("parameters");
        assert_eq!(parameters, fill_parameters(&x, 1));
        let mut before = [std::ptr::null_mut()];
        count = 1;
        sys::cuGraphNodeGetDependencies_v2(two, before.as_mut_ptr(), std::ptr::null_mut(), &mut count)
            .result()
            .expect("dependencies");
        assert_eq!((before, count), ([one], 1));
    }
}

#[test]
fn circles_are_refused() {
    let context = context();
    let x = Bytes::new(1);
    let graph = Graph::new(&context);
    let one = graph.fill(&x, 1, &[]);
    let two = graph.fill(&x, 2, &[one]);
    // SAFETY: the nodes exist.
    unsafe { sys::cuGraphAddDependencies_v2(graph.graph, &two, &one, std::ptr::null(), 1) }
        .result()
        .expect("an edge");
    // SAFETY: the graph exists.
    let exec = unsafe { result::graph::instantiate(graph.graph, sys::CUgraphInstantiate_flags(0)) };
    assert_eq!(code(exec), Code::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn event_nodes_tie_a_graph_to_streams() {
    let context = context();
    let (x, y) = (Bytes::new(1), Bytes::new(1));
    let (a, b) = (stream(&context), stream(&context));
    let (before, after) =
        (context.new_event(None).expect("an event"), context.new_event(None).expect("an event"));
    let graph = Graph::new(&context);
    let (mut wait, mut record) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the pointers are valid.
    unsafe {
        sys::cuGraphAddEventWaitNode(&mut wait, graph.graph, std::ptr::null(), 0, before.cu_event())
            .result()
            .expect("a node");
        let copy = graph.copy(&y, &x, &[wait]);
        sys::cuGraphAddEventRecordNode(&mut record, graph.graph, &copy, 1, after.cu_event())
            .result()
            .expect("a node");
    }
    let exec = graph.instantiate();
    let values = outcomes(|| {
        x.fill(0, a.cu_stream());
        context.synchronize().expect("done");
        x.fill(1, a.cu_stream());
        before.record(&a).expect("recorded");
        // SAFETY: graph and stream exist.
        unsafe { result::graph::launch(exec.0, b.cu_stream()) }.expect("launched");
        a.wait(&after).expect("ordered");
        x.fill(2, a.cu_stream());
        y.first()
    });
    assert!(values.iter().all(|value| *value == 1), "{values:?}");
}

#[test]
fn graphs_that_are_gone_are_refused() {
    let context = context();
    let x = Bytes::new(1);
    let graph = Graph::new(&context);
    graph.fill(&x, 1, &[]);
    let exec = graph.instantiate();
    let (gone_graph, gone_exec) = (graph.graph, exec.0);
    drop((graph, exec));
    // SAFETY: the calls are refused.
    unsafe {
        assert_eq!(code(result::graph::destroy(gone_graph)), Code::CUDA_ERROR_INVALID_VALUE);
        let launch = result::graph::launch(gone_exec, std::ptr::null_mut());
        assert_eq!(code(launch), Code::CUDA_ERROR_INVALID_VALUE);
    }
}
