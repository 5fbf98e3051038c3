//! Device memory of other processes.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, LaunchConfig, PushKernelArg, result, sys};
use cudarc::nvrtc::Ptx;
use sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL as LOCAL;

use crate::kernels::INCREMENT;
use crate::support::{Bytes, Code, client, code, context, stream};

/// For a process of these tests: its device.
const DEVICE: &str = "DG_TEST_IPC_DEVICE";
/// How its answers begin, among what the test program says.
const ANSWER: char = '@';
const LAZY: u32 = sys::CUipcMem_flags_enum::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as u32;

/// Each block stores its number at the same place.
const CLASH: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry clash_of_blocks(.param .u64 to)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [to];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, %ctaid.x;
    st.global.u32 [%rd2], %r1;
    ret;
}
";

type Handle = sys::CUipcMemHandle;

/// Another process, which does what it is told.
struct Other {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Other {
    /// One that uses a device, of two.
    fn on_device(device: u32) -> Other {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["ipc::another_process", "--exact", "--ignored", "--nocapture"])
            .envs([("DG_EMULATOR_DEVICES", "2"), (DEVICE, &device.to_string())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Other { child, lines }
    }

    fn new() -> Other {
        Other::on_device(0)
    }

    /// Tells it something and returns what it answers.
    fn tell(&mut self, what: &str) -> String {
        let pipe = self.child.stdin.as_mut().expect("a pipe");
        writeln!(pipe, "{what}").expect("a process that listens");
        let mut lines = self.lines.by_ref().map(|line| line.expect("a line"));
        lines.find_map(|line| Some(line.split_once(ANSWER)?.1.to_owned())).expect("an answer")
    }

    /// Its allocation of so many bytes, to be filled with a value.
    fn alloc(&mut self, len: usize, value: u8) -> Handle {
        handle_of(&self.tell(&format!("alloc {len} {value}")))
    }

    /// Ends it as if it were shot.
    fn kill(&mut self) {
        self.child.kill().expect("a process");
        self.child.wait().expect("its end");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = (self.child.kill(), self.child.wait());
    }
}

fn text_of(handle: &Handle) -> String {
    handle.reserved.iter().map(|byte| format!("{:02x}", *byte as u8)).collect()
}

fn handle_of(text: &str) -> Handle {
    let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("digits") as _;
    Handle { reserved: std::array::from_fn(byte) }
}

fn export(address: u64) -> Result<Handle, Code> {
    let mut handle = Handle { reserved: [0; 64] };
    // SAFETY: the pointer is valid, and the address is checked.
    match unsafe { sys::cuIpcGetMemHandle(&mut handle, address) } {
        Code::CUDA_SUCCESS => Ok(handle),
        code => Err(code),
    }
}

fn open(handle: Handle) -> Result<u64, Code> {
    let mut address = 0;
    // SAFETY: the pointer is valid, and the handle is checked.
    match unsafe { sys::cuIpcOpenMemHandle_v2(&mut address, handle, LAZY) } {
        Code::CUDA_SUCCESS => Ok(address),
        code => Err(code),
    }
}

fn close(address: u64) -> Code {
    // SAFETY: the address is checked.
    unsafe { sys::cuIpcCloseMemHandle(address) }
}

/// The first byte at an address, or why it cannot be read.
fn first(address: u64) -> Result<u8, Code> {
    let mut byte = [0];
    // SAFETY: the address is checked.
    let read = unsafe { result::memcpy_dtoh_sync(&mut byte, address) };
    read.map(|()| byte[0]).map_err(|error| error.0)
}

fn load_increment(context: &Arc<CudaContext>) -> CudaFunction {
    let module = context.load_module(Ptx::from_src(INCREMENT)).expect("a module");
    module.load_function("increment").expect("a function")
}

/// Adds one to so many 32-bit numbers, and waits for it.
fn increment(context: &Arc<CudaContext>, address: u64, count: u32) -> Code {
    let (increment, stream) = (load_increment(context), stream(context));
    let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (count, 1, 1), shared_mem_bytes: 0 };
    let mut builder = stream.launch_builder(&increment);
    builder.arg(&address);
    // SAFETY: what is out of bounds is found.
    unsafe { builder.launch(config) }.expect("launched");
    code(stream.synchronize())
}

#[test]
#[ignore = "a process of the tests here"]
fn another_process() {
    let Ok(device) = std::env::var(DEVICE) else { return };
    client();
    let context = CudaContext::new_non_primary(device.parse().expect("a number"), 0).expect("a context");
    let mut allocations = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        println!("\n{ANSWER}{}", obey(&context, &mut allocations, &line));
    }
}

/// What another process does, with what it has allocated last, and answers.
fn obey(context: &Arc<CudaContext>, allocations: &mut Vec<Bytes>, line: &str) -> String {
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let words: Vec<&str> = line.split_whitespace().collect();
    if let ["alloc", len, ..] = words[..] {
        allocations.push(Bytes::new(number(len) as usize));
    }
    let last = allocations.last();
    let own = || last.expect("an allocation");
    let fill = |value| own().fill(number(value) as u8, std::ptr::null_mut());
    match words[..] {
        ["alloc", _] => text_of(&export(own().address).expect("a handle")),
        ["alloc", _, value] => {
            fill(value);
            // While the fill is still to be done.
            let handle = export(own().address).expect("a handle");
            context.synchronize().expect("done");
            text_of(&handle)
        }
        ["fill", value] => {
            fill(value);
            format!("{:?}", code(context.synchronize()))
        }
        ["read"] => format!("{:?}", own().read()),
        ["increment", count] => format!("{:?}", increment(context, own().address, number(count))),
        ["free"] => format!("{:?}", allocations.pop().map(|bytes| bytes.len)),
        ["open", handle] => {
            let free = || context.mem_get_info().expect("sizes").0;
            let before = free();
            let address = open(handle_of(handle)).expect("an address");
            format!("{} {}", first(address).expect("a byte"), before - free())
        }
        _ => panic!("{line:?} is no command"),
    }
}

#[test]
fn kernels_of_two_processes_change_the_same_memory() {
    let context = context();
    let mut other = Other::new();
    let address = open(other.alloc(8, 1)).expect("an address");
    assert_eq!(first(address), Ok(1));
    assert_eq!(increment(&context, address, 2), Code::CUDA_SUCCESS);
    assert_eq!(other.tell("read"), "[2, 1, 1, 1, 2, 1, 1, 1]");
    assert_eq!(other.tell("increment 1"), "CUDA_SUCCESS");
    let mut bytes = [0u8; 8];
    // SAFETY: there are as many.
    unsafe { result::memcpy_dtoh_sync(&mut bytes, address) }.expect("a copy");
    assert_eq!(bytes, [3, 1, 1, 1, 2, 1, 1, 1]);
}

/// On either side, bytes count as written: by whom is not known.
#[test]
fn what_another_process_has_written_is_written() {
    let context = context();
    let mut other = Other::new();
    let address = open(handle_of(&other.tell("alloc 4"))).expect("an address");
    // SAFETY: the range is there.
    unsafe { result::memset_d8_sync(address, 4, 4) }.expect("a fill");
    context.synchronize().expect("done");
    assert_eq!(other.tell("increment 1"), "CUDA_SUCCESS");
    assert_eq!(first(address), Ok(5));
}

#[test]
fn bounds_of_memory_of_another_process_are_checked() {
    let context = context();
    let mut other = Other::new();
    let address = open(other.alloc(8, 1)).expect("an address");
    assert_eq!(increment(&context, address, 3), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    let _ = context.check_err();
}

#[test]
fn races_in_memory_of_another_process_are_found_and_accesses_counted() {
    let context = context();
    let stream = stream(&context);
    let module = context.load_module(Ptx::from_src(CLASH)).expect("a module");
    let clash = module.load_function("clash_of_blocks").expect("a function");
    let mut other = Other::new();
    let address = open(other.alloc(4, 1)).expect("an address");
    let launch = |blocks| {
        let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 };
        let mut builder = stream.launch_builder(&clash);
        builder.arg(&address);
        // SAFETY: the race is the mistake to be found.
        unsafe { builder.launch_cooperative(config) }.expect("launched");
        code(stream.synchronize())
    };
    assert_eq!(launch(1), Code::CUDA_SUCCESS);
    assert_eq!(other.tell("read"), "[0, 0, 0, 0]");
    let counters = client().kernel_counters("clash_of_blocks").expect("counters");
    assert_eq!((counters.launches, counters.global_store_sectors), (1, 1));
    assert_eq!(launch(2), Code::CUDA_ERROR_LAUNCH_FAILED);
    let _ = context.check_err();
}

#[test]
fn a_graph_copies_what_another_process_has_written_last() {
    let context = context();
    let stream = stream(&context);
    let mut other = Other::new();
    let address = open(other.alloc(4, 1)).expect("an address");
    let (copied, copied_too) = (Bytes::new(4), Bytes::new(4));
    stream.begin_capture(LOCAL).expect("begun");
    // SAFETY: the ranges are there.
    unsafe {
        result::memcpy_dtod_async(copied.address, address, 4, stream.cu_stream()).expect("captured");
        let plain = sys::cuMemcpyAsync(copied_too.address, address, 4, stream.cu_stream());
        plain.result().expect("captured");
    }
    let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0)).expect("a graph").expect("a graph");
    for value in 2..5 {
        other.tell(&format!("fill {value}"));
        graph.launch().expect("launched");
        assert_eq!((copied.read(), copied_too.read()), (vec![value; 4], vec![value; 4]));
    }
    assert_eq!(close(address), Code::CUDA_SUCCESS);
    graph.launch().expect("launched");
    assert_eq!(code(context.synchronize()), Code::CUDA_ERROR_ILLEGAL_ADDRESS);
    let _ = context.check_err();
}

#[test]
fn a_handle_is_that_of_an_allocation() {
    let _context = context();
    let (one, two) = (Bytes::new(1000), Bytes::new(1000));
    let handle = export(one.address).expect("a handle");
    assert_eq!(export(one.address + 999), Ok(handle));
    assert_ne!(export(two.address), Ok(handle));
    drop(one);
    let three = Bytes::new(1000);
    assert_ne!(export(three.address), Ok(handle));
}

#[test]
fn exporting_changes_nothing() {
    let context = context();
    let bytes = Bytes::new(10_000);
    bytes.fill(3, std::ptr::null_mut());
    context.synchronize().expect("done");
    export(bytes.address).expect("a handle");
    assert_eq!(bytes.read(), [3; 10_000]);
    bytes.fill(4, std::ptr::null_mut());
    export(bytes.address).expect("a handle");
    assert_eq!(bytes.read(), [4; 10_000]);
}

#[test]
fn only_memory_of_the_device_itself_can_be_exported() {
    let context = context();
    let stream = stream(&context);
    let invalid = Err(Code::CUDA_ERROR_INVALID_VALUE);
    let mut other = Other::new();
    let bytes = Bytes::new(64);
    // SAFETY: the memory is freed below, and addresses are checked.
    unsafe {
        let nowhere = sys::cuIpcGetMemHandle(std::ptr::null_mut(), bytes.address);
        assert_eq!(nowhere, Code::CUDA_ERROR_INVALID_VALUE);
        let pooled = result::malloc_async(stream.cu_stream(), 64).expect("memory");
        assert_eq!(export(pooled), invalid);
        result::free_async(pooled, stream.cu_stream()).expect("freed");
        let pinned = result::malloc_host(64, 0).expect("memory");
        assert_eq!(export(pinned as u64), invalid);
        result::free_host(pinned).expect("freed");
        let flags = sys::CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL;
        let managed = result::malloc_managed(64, flags).expect("memory");
        assert_eq!(export(managed), invalid);
        result::memory_free(managed).expect("freed");
    }
    assert_eq!(export(open(other.alloc(64, 1)).expect("an address")), invalid);
    let address = bytes.address;
    assert_eq!(export(address + 64), invalid);
    drop(bytes);
    assert_eq!(export(address), invalid);
}

#[test]
fn handles_are_opened_elsewhere_and_by_one_context() {
    let context = context();
    let stream = stream(&context);
    let mut other = Other::new();
    let handle = other.alloc(64, 1);
    let mut address = 0;
    // SAFETY: the pointers are valid or null.
    unsafe {
        let flags = sys::cuIpcOpenMemHandle_v2(&mut address, handle, 0);
        assert_eq!(flags, Code::CUDA_ERROR_INVALID_VALUE);
        let nowhere = sys::cuIpcOpenMemHandle_v2(std::ptr::null_mut(), handle, LAZY);
        assert_eq!(nowhere, Code::CUDA_ERROR_INVALID_VALUE);
    }
    assert_eq!(open(Handle { reserved: [1; 64] }), Err(Code::CUDA_ERROR_INVALID_VALUE));
    let own = Bytes::new(64);
    let own_handle = export(own.address).expect("a handle");
    assert_eq!(open(own_handle), Err(Code::CUDA_ERROR_INVALID_CONTEXT));
    stream.begin_capture(LOCAL).expect("begun");
    assert_eq!(open(handle), Err(Code::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED));
    let _ = stream.end_capture(sys::CUgraphInstantiate_flags(0));
    open(handle).expect("an address");
    let second = crate::support::context();
    assert_eq!(open(handle), Err(Code::CUDA_ERROR_INVALID_HANDLE));
    // Until the first context is gone, and what it has opened with it.
    drop((own, stream, context));
    second.bind_to_thread().expect("bound");
    assert_eq!(first(open(handle).expect("an address")), Ok(1));
}

#[test]
fn memory_is_closed_as_often_as_it_was_opened() {
    let _context = context();
    let mut other = Other::new();
    let (one, two) = (other.alloc(64, 1), other.alloc(64, 2));
    let address = open(one).expect("an address");
    assert_eq!(open(one), Ok(address));
    let elsewhere = open(two).expect("an address");
    assert_eq!((first(address), first(elsewhere)), (Ok(1), Ok(2)));
    assert_eq!(close(address), Code::CUDA_SUCCESS);
    assert_eq!(first(address), Ok(1));
    assert_eq!(close(address), Code::CUDA_SUCCESS);
    assert_eq!(first(address), Err(Code::CUDA_ERROR_INVALID_VALUE));
    assert_eq!(close(address), Code::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(first(elsewhere), Ok(2));
    let again = open(one).expect("an address");
    assert!(again != address && first(again) == Ok(1));
}

#[test]
fn memory_of_another_process_is_closed_and_not_freed() {
    let context = context();
    let stream = stream(&context);
    let mut other = Other::new();
    let address = open(other.alloc(64, 1)).expect("an address");
    let own = Bytes::new(64);
    let invalid = Code::CUDA_ERROR_INVALID_VALUE;
    // SAFETY: wrong addresses are refused.
    unsafe {
        assert_eq!(code(result::free_sync(address)), invalid);
        assert_eq!(code(result::free_async(address, stream.cu_stream())), invalid);
    }
    assert_eq!((close(address + 4), close(own.address)), (invalid, invalid));
    assert_eq!((first(address), close(address)), (Ok(1), Code::CUDA_SUCCESS));
    assert_eq!(other.tell("read"), format!("{:?}", [1; 64]));
}

/// Closing waits for what may use the memory, as freeing does.
#[test]
fn work_in_any_stream_is_done_before_memory_is_closed() {
    let context = context();
    let stream = stream(&context);
    let mut other = Other::new();
    let handle = other.alloc(4, 6);
    let copied = Bytes::new(4);
    let values = crate::support::outcomes(|| {
        let address = open(handle).expect("an address");
        copied.fill(0, stream.cu_stream());
        // SAFETY: the ranges are there.
        unsafe { result::memcpy_dtod_async(copied.address, address, 4, stream.cu_stream()) }.expect("a copy");
        assert_eq!(close(address), Code::CUDA_SUCCESS);
        copied.first()
    });
    assert!(values.iter().all(|value| *value == 6), "{values:?}");
}

#[test]
fn a_stale_handle_is_refused_and_open_memory_stays() {
    let _context = context();
    let stale = Err(Code::CUDA_ERROR_INVALID_HANDLE);
    let mut other = Other::new();
    let freed = other.alloc(64, 1);
    let address = open(freed).expect("an address");
    assert_eq!(other.tell("free"), "Some(64)");
    let left = other.alloc(64, 2);
    assert_eq!(first(address), Ok(1));
    assert_eq!(close(address), Code::CUDA_SUCCESS);
    assert_eq!(open(freed), stale);
    let address = open(left).expect("an address");
    other.kill();
    assert_eq!(first(address), Ok(2));
    assert_eq!(close(address), Code::CUDA_SUCCESS);
    assert_eq!(open(left), stale);
}

#[test]
fn memory_of_another_process_takes_none_of_the_device() {
    let _context = context();
    let bytes = Bytes::new(1 << 20);
    bytes.fill(9, std::ptr::null_mut());
    let handle = export(bytes.address).expect("a handle");
    result::ctx::synchronize().expect("done");
    assert_eq!(Other::new().tell(&format!("open {}", text_of(&handle))), "9 0");
}

#[test]
fn memory_of_another_device_says_so() {
    let context = context();
    let mut other = Other::on_device(1);
    let address = open(other.alloc(100, 8)).expect("an address");
    use sys::CUpointer_attribute_enum::*;
    let get = |attribute, address| {
        let mut value = 0u64;
        // SAFETY: no attribute is wider.
        match unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), attribute, address) } {
            Code::CUDA_SUCCESS => Ok(value),
            code => Err(code),
        }
    };
    assert_eq!(get(CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address + 99), Ok(1));
    assert_eq!(get(CU_POINTER_ATTRIBUTE_CONTEXT, address), Ok(context.cu_ctx() as u64));
    assert_eq!(get(CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, address + 99), Ok(address));
    assert_eq!(get(CU_POINTER_ATTRIBUTE_RANGE_SIZE, address), Ok(100));
    let on_host = get(CU_POINTER_ATTRIBUTE_HOST_POINTER, address);
    assert_eq!(on_host, Err(Code::CUDA_ERROR_INVALID_VALUE));
    assert_eq!(first(address), Ok(8));
}
