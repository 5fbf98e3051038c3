//! Nodes that are added to graphs by hand, and the parameters of nodes.

use std::ffi::c_void;
use std::sync::Arc;

use super::abi::{
    Handle, HostNodeParams, In, KernelNodeParams, KernelNodeParamsV1, Memcpy3D, Memcpy3DSide,
    MemsetNodeParams, Out, memory_type,
};
use super::copy::{Copy, Fill, Place, Side};
use super::graph::{Node, Payload};
use super::launch::Geometry;
use super::state::Driver;
use super::status::{Result, Status};
use super::work::{HostCall, Kernel, Work};
use super::{api, unsupported, with_driver};

/// The first version of kernel parameters, brought up to date.
fn upgrade(old: KernelNodeParamsV1) -> KernelNodeParams {
    let KernelNodeParamsV1 { function, grid, block, dynamic_shared, params, extra } = old;
    KernelNodeParams { function, grid, block, dynamic_shared, params, extra, kernel: 0, context: 0 }
}

impl Driver {
    fn kernel_payload(&self, p: &KernelNodeParams) -> Result<Payload> {
        if p.kernel != 0 {
            return unsupported("a CUkernel in a graph");
        }
        let geometry = Geometry::plain(p.grid, p.block, p.dynamic_shared);
        // SAFETY: C passes parameters as for a launch.
        let (params, extra) = unsafe { (In::new(p.params.cast_const()), In::new(p.extra.cast_const())) };
        let kernel = self.prepare(p.function, geometry, params, extra)?;
        Ok(Payload::Work(Work::Kernel(kernel)))
    }

    fn memset_payload(&self, p: &MemsetNodeParams) -> Result<Payload> {
        let fill = Fill {
            address: p.destination,
            pitch: p.pitch as u64,
            value: p.value,
            element: p.element_size,
            width: p.width as u64,
            height: p.height as u64,
        };
        fill.check(self)?;
        Ok(Payload::Work(Work::Fill(fill)))
    }

    fn memcpy_payload(&self, p: &Memcpy3D) -> Result<Payload> {
        Ok(Payload::Work(Work::Copy(Arc::new(self.copy_3d(p)?))))
    }

    /// Puts other parameters into a node of a graph.
    fn set_node(&mut self, node: Handle, payload: impl FnOnce(&Driver) -> Result<Payload>) -> Result {
        let new = payload(self)?;
        replace(self.node_mut(node)?, new)
    }

    /// Puts other parameters into a node of an executable graph.
    fn set_exec_node(
        &mut self,
        exec: Handle,
        node: Handle,
        payload: impl FnOnce(&Driver) -> Result<Payload>,
    ) -> Result {
        let new = payload(self)?;
        let exec = self.exec(exec)?;
        let node = exec.nodes.iter_mut().find(|n| n.handle == node).ok_or(Status::INVALID_VALUE)?;
        replace(node, new)
    }

    fn kernel_of(&self, node: Handle) -> Result<Arc<Kernel>> {
        match &self.node(node)?.payload {
            Payload::Work(Work::Kernel(kernel)) => Ok(Arc::clone(kernel)),
            _ => Err(Status::INVALID_VALUE),
        }
    }

    /// The parameters of a kernel node. The pointers in them are good until they are asked for again.
    fn show_kernel(&mut self, node: Handle) -> Result<KernelNodeParams> {
        let kernel = self.kernel_of(node)?;
        let graph = *self.nodes.get(&node).ok_or(Status::INVALID_VALUE)?;
        let bytes = kernel.launch.params.clone().into_boxed_slice();
        let start = bytes.as_ptr() as u64;
        let pointers: Box<[u64]> = kernel.function.params.iter().map(|p| start + p.offset as u64).collect();
        let params = pointers.as_ptr().cast_mut().cast::<*mut c_void>();
        self.graph_mut(graph)?.shown.insert(node, (bytes, pointers));
        Ok(KernelNodeParams {
            function: kernel.handle,
            grid: kernel.launch.grid,
            block: kernel.launch.block,
            dynamic_shared: kernel.launch.dynamic_shared,
            params,
            extra: std::ptr::null_mut(),
            kernel: 0,
            context: self.function(kernel.handle).map_or(0, |function| function.context),
        })
    }
}

/// Parameters may change, but not what kind of node it is; clusters and cooperation stay as they were.
fn replace(node: &mut Node, mut new: Payload) -> Result {
    if node.payload.node_type() != new.node_type() {
        return Err(Status::INVALID_VALUE);
    }
    if let (Payload::Work(Work::Kernel(old)), Payload::Work(Work::Kernel(kernel))) = (&node.payload, &mut new)
    {
        let mut changed = Kernel::clone(kernel);
        changed.launch.cluster = old.launch.cluster;
        changed.launch.cooperative = old.launch.cooperative;
        *kernel = Arc::new(changed);
    }
    node.payload = new;
    Ok(())
}

fn add(
    out: Out<Handle>,
    graph: Handle,
    after: In<Handle>,
    count: usize,
    payload: impl FnOnce(&Driver) -> Result<Payload>,
) -> Result {
    out.check()?;
    let after = after.all(count)?;
    with_driver(|driver| {
        driver.graph(graph)?;
        let payload = payload(driver)?;
        out.set(driver.add_node(graph, &after, payload)?)
    })
}

/// A side of a copy as `CUDA_MEMCPY3D` says it.
fn show_side(side: &Side) -> Memcpy3DSide {
    let (memory_type, host, device) = match side.place {
        Place::Device(address) => (memory_type::DEVICE, 0, address),
        Place::Host(address) => (memory_type::HOST, address, 0),
        Place::Staged(_) => (memory_type::HOST, 0, 0),
    };
    Memcpy3DSide {
        x: 0,
        y: 0,
        z: 0,
        level: 0,
        memory_type,
        host,
        device,
        array: 0,
        reserved: 0,
        pitch: side.pitch as usize,
        slice_rows: (side.slice / side.pitch.max(1)) as usize,
    }
}

fn show_copy(copy: &Copy) -> Memcpy3D {
    let [width, height, depth] = copy.size.map(|size| size as usize);
    let (source, destination) = (show_side(&copy.source), show_side(&copy.destination));
    Memcpy3D { source, destination, width, height, depth }
}

fn host_payload(params: In<HostNodeParams>) -> Result<Payload> {
    let HostNodeParams { function, data } = params.get()?;
    let function = function.ok_or(Status::INVALID_VALUE)?;
    Ok(Payload::Work(Work::Host(HostCall { function, data })))
}

api! {
    fn cuGraphAddEmptyNode(out: Out<Handle>, graph: Handle, after: In<Handle>, count: usize) {
        add(out, graph, after, count, |_| Ok(Payload::Work(Work::Nothing)))
    }

    fn cuGraphAddKernelNode(
        out: Out<Handle>, graph: Handle, after: In<Handle>, count: usize, params: In<KernelNodeParamsV1>,
    ) {
        let params = upgrade(params.get()?);
        add(out, graph, after, count, |driver| driver.kernel_payload(&params))
    }

    fn cuGraphAddKernelNode_v2(
        out: Out<Handle>, graph: Handle, after: In<Handle>, count: usize, params: In<KernelNodeParams>,
    ) {
        let params = params.get()?;
        add(out, graph, after, count, |driver| driver.kernel_payload(&params))
    }

    fn cuGraphAddMemcpyNode(
        out: Out<Handle>, graph: Handle, after: In<Handle>, count: usize, params: In<Memcpy3D>, context: Handle,
    ) {
        let params = params.get()?;
        add(out, graph, after, count, |driver| {
            driver.check_sound(context)?;
            driver.memcpy_payload(&params)
        })
    }

    fn cuGraphAddMemsetNode(
        out: Out<Handle>, graph: Handle, after: In<Handle>, count: usize, params: In<MemsetNodeParams>,
        context: Handle,
    ) {
        let params = params.get()?;
        add(out, graph, after, count, |driver| {
            driver.check_sound(context)?;
            driver.memset_payload(&params)
        })
    }

    fn cuGraphAddHostNode(
        out: Out<Handle>, graph: Handle, after: In<Handle>, count: usize, params: In<HostNodeParams>,
    ) {
        add(out, graph, after, count, |_| host_payload(params))
    }

    fn cuGraphAddEventRecordNode(
        out: Out<Handle>, graph: Handle, after: In<Handle>, count: usize, event: Handle,
    ) {
        add(out, graph, after, count, |driver| driver.event(event).map(|_| Payload::Record(event)))
    }

    fn cuGraphAddEventWaitNode(
        out: Out<Handle>, graph: Handle, after: In<Handle>, count: usize, event: Handle,
    ) {
        add(out, graph, after, count, |driver| driver.event(event).map(|_| Payload::Wait(event)))
    }

    fn cuGraphKernelNodeGetParams(node: Handle, out: Out<KernelNodeParamsV1>) {
        with_driver(|driver| {
            let KernelNodeParams { function, grid, block, dynamic_shared, params, extra, .. } =
                driver.show_kernel(node)?;
            out.set(KernelNodeParamsV1 { function, grid, block, dynamic_shared, params, extra })
        })
    }

    fn cuGraphKernelNodeGetParams_v2(node: Handle, out: Out<KernelNodeParams>) {
        with_driver(|driver| out.set(driver.show_kernel(node)?))
    }

    fn cuGraphKernelNodeSetParams(node: Handle, params: In<KernelNodeParamsV1>) {
        let params = upgrade(params.get()?);
        with_driver(|driver| driver.set_node(node, |driver| driver.kernel_payload(&params)))
    }

    fn cuGraphKernelNodeSetParams_v2(node: Handle, params: In<KernelNodeParams>) {
        let params = params.get()?;
        with_driver(|driver| driver.set_node(node, |driver| driver.kernel_payload(&params)))
    }

    fn cuGraphExecKernelNodeSetParams(exec: Handle, node: Handle, params: In<KernelNodeParamsV1>) {
        let params = upgrade(params.get()?);
        with_driver(|driver| driver.set_exec_node(exec, node, |driver| driver.kernel_payload(&params)))
    }

    fn cuGraphExecKernelNodeSetParams_v2(exec: Handle, node: Handle, params: In<KernelNodeParams>) {
        let params = params.get()?;
        with_driver(|driver| driver.set_exec_node(exec, node, |driver| driver.kernel_payload(&params)))
    }

    fn cuGraphMemcpyNodeGetParams(node: Handle, out: Out<Memcpy3D>) {
        with_driver(|driver| match &driver.node(node)?.payload {
            Payload::Work(Work::Copy(copy)) => out.set(show_copy(copy)),
            _ => Err(Status::INVALID_VALUE),
        })
    }

    fn cuGraphMemcpyNodeSetParams(node: Handle, params: In<Memcpy3D>) {
        let params = params.get()?;
        with_driver(|driver| driver.set_node(node, |driver| driver.memcpy_payload(&params)))
    }

    fn cuGraphExecMemcpyNodeSetParams(exec: Handle, node: Handle, params: In<Memcpy3D>, context: Handle) {
        let params = params.get()?;
        with_driver(|driver| {
            driver.check_sound(context)?;
            driver.set_exec_node(exec, node, |driver| driver.memcpy_payload(&params))
        })
    }

    fn cuGraphMemsetNodeGetParams(node: Handle, out: Out<MemsetNodeParams>) {
        with_driver(|driver| match &driver.node(node)?.payload {
            Payload::Work(Work::Fill(fill)) => out.set(MemsetNodeParams {
                destination: fill.address,
                pitch: fill.pitch as usize,
                value: fill.value,
                element_size: fill.element,
                width: fill.width as usize,
                height: fill.height as usize,
            }),
            _ => Err(Status::INVALID_VALUE),
        })
    }

    fn cuGraphMemsetNodeSetParams(node: Handle, params: In<MemsetNodeParams>) {
        let params = params.get()?;
        with_driver(|driver| driver.set_node(node, |driver| driver.memset_payload(&params)))
    }

    fn cuGraphExecMemsetNodeSetParams(exec: Handle, node: Handle, params: In<MemsetNodeParams>, context: Handle) {
        let params = params.get()?;
        with_driver(|driver| {
            driver.check_sound(context)?;
            driver.set_exec_node(exec, node, |driver| driver.memset_payload(&params))
        })
    }

    fn cuGraphHostNodeGetParams(node: Handle, out: Out<HostNodeParams>) {
        with_driver(|driver| match &driver.node(node)?.payload {
            Payload::Work(Work::Host(call)) => {
                out.set(HostNodeParams { function: Some(call.function), data: call.data })
            }
            _ => Err(Status::INVALID_VALUE),
        })
    }

    fn cuGraphHostNodeSetParams(node: Handle, params: In<HostNodeParams>) {
        with_driver(|driver| driver.set_node(node, |_| host_payload(params)))
    }

    fn cuGraphExecHostNodeSetParams(exec: Handle, node: Handle, params: In<HostNodeParams>) {
        with_driver(|driver| driver.set_exec_node(exec, node, |_| host_payload(params)))
    }

    fn cuGraphEventRecordNodeGetEvent(node: Handle, out: Out<Handle>) {
        with_driver(|driver| match driver.node(node)?.payload {
            Payload::Record(event) => out.set(event),
            _ => Err(Status::INVALID_VALUE),
        })
    }

    fn cuGraphEventWaitNodeGetEvent(node: Handle, out: Out<Handle>) {
        with_driver(|driver| match driver.node(node)?.payload {
            Payload::Wait(event) => out.set(event),
            _ => Err(Status::INVALID_VALUE),
        })
    }
}
