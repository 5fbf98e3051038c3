//! Modules: what is loaded, and what is refused.

use std::ffi::{CString, c_void};

use cudarc::driver::{result, sys};
use sys::CUjit_option::*;

use crate::support::{Code, code, context};

/// A kernel that stores a number, and a global variable.
pub const PTX: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 numbers[3] = {7, 8, 9};
.visible .entry store(.param .u64 to, .param .u32 value)
{
    .reg .b32 %r<2>;
    .reg .b64 %rd<3>;
    ld.param.u64 %rd1, [to];
    ld.param.u32 %r1, [value];
    cvta.to.global.u64 %rd2, %rd1;
    st.global.u32 [%rd2], %r1;
    ret;
}
.visible .entry nothing()
{
    ret;
}
";

/// Loads PTX.
pub fn load(ptx: &str) -> Result<sys::CUmodule, Code> {
    let text = CString::new(ptx).expect("no zero inside");
    // SAFETY: a C string.
    unsafe { result::module::load_data(text.as_ptr().cast()) }.map_err(|error| error.0)
}

/// A kernel of a module.
pub fn function(module: sys::CUmodule, name: &str) -> Result<sys::CUfunction, Code> {
    let name = CString::new(name).expect("no zero inside");
    // SAFETY: the handle is checked.
    unsafe { result::module::get_function(module, name) }.map_err(|error| error.0)
}

#[test]
fn what_is_no_ptx_is_refused_by_its_kind() {
    let _context = context();
    assert_eq!(load("hello").err(), Some(Code::CUDA_ERROR_INVALID_IMAGE));
    assert_eq!(load("\x7fELF\x02\x01\x01").err(), Some(Code::CUDA_ERROR_NO_BINARY_FOR_GPU));
    let newer = PTX.replace("sm_80", "sm_100");
    assert_eq!(load(&newer).err(), Some(Code::CUDA_ERROR_NO_BINARY_FOR_GPU));
    let older = PTX.replace("sm_80", "sm_80a");
    assert_eq!(load(&older).err(), Some(Code::CUDA_ERROR_NO_BINARY_FOR_GPU));
    let nowhere = result::module::load(c"no/such/file.ptx".to_owned());
    assert_eq!(code(nowhere), Code::CUDA_ERROR_FILE_NOT_FOUND);
}

#[test]
fn ptx_that_cannot_be_read_is_explained_in_the_log() {
    let _context = context();
    let broken = CString::new(PTX.replace("st.global.u32", "st.glubal.u32")).expect("no zero inside");
    let mut log = [0u8; 512];
    let options = [CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), log.len() as *mut c_void];
    let mut module = std::ptr::null_mut();
    // SAFETY: the pointers are valid.
    let code = unsafe {
        let (options, values) = (options.as_ptr().cast_mut(), values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&mut module, broken.as_ptr().cast(), 2, options, values)
    };
    assert_eq!(code, Code::CUDA_ERROR_INVALID_PTX);
    let len = values[1] as usize;
    let text = std::str::from_utf8(&log[..len]).expect("text");
    assert!(text.ends_with('\0') && text.contains("glubal"), "{text:?}");
}

#[test]
fn functions_and_variables_are_found_by_name() {
    let _context = context();
    let module = load(PTX).expect("a module");
    let store = function(module, "store").expect("a function");
    assert_eq!(function(module, "store"), Ok(store));
    assert_eq!(function(module, "stare").err(), Some(Code::CUDA_ERROR_NOT_FOUND));
    // SAFETY: the handles are checked, and the pointers are valid.
    unsafe {
        let (address, len) = result::module::get_global(module, c"numbers".to_owned()).expect("a variable");
        assert_eq!(len, 12);
        let mut numbers = [0u32; 3];
        result::memcpy_dtoh_sync(&mut numbers, address).expect("a copy");
        assert_eq!(numbers, [7, 8, 9]);
        let missing = result::module::get_global(module, c"letters".to_owned());
        assert_eq!(code(missing), Code::CUDA_ERROR_NOT_FOUND);
        let mut count = 0;
        sys::cuModuleGetFunctionCount(&mut count, module).result().expect("a number");
        assert_eq!(count, 2);
        let (mut offset, mut size) = (0, 0);
        sys::cuFuncGetParamInfo(store, 1, &mut offset, &mut size).result().expect("a parameter");
        assert_eq!((offset, size), (8, 4));
        let beyond = sys::cuFuncGetParamInfo(store, 2, &mut offset, &mut size);
        assert_eq!(beyond, Code::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn functions_go_with_their_module() {
    let _context = context();
    let module = load(PTX).expect("a module");
    let store = function(module, "store").expect("a function");
    // SAFETY: the handles are checked.
    unsafe {
        result::module::unload(module).expect("unloaded");
        assert_eq!(code(result::module::unload(module)), Code::CUDA_ERROR_INVALID_HANDLE);
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
        let gone = result::function::get_function_attribute(store, attribute);
        assert_eq!(code(gone), Code::CUDA_ERROR_INVALID_HANDLE);
    }
    assert_eq!(function(module, "store").err(), Some(Code::CUDA_ERROR_INVALID_HANDLE));
}
