//! Our types against those that cudarc generated from the headers.

use std::mem::{align_of, offset_of, size_of};

use cuda_emulator::driver::abi;
use cudarc::driver::sys;

macro_rules! same_layout {
    ($ours:ty, $theirs:ty, $($field:ident = $other:ident),* $(,)?) => {
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), stringify!($theirs));
        assert_eq!(align_of::<$ours>(), align_of::<$theirs>(), stringify!($theirs));
        $(assert_eq!(
            offset_of!($ours, $field),
            offset_of!($theirs, $other),
            concat!(stringify!($theirs), ".", stringify!($other)),
        );)*
    };
}

#[test]
fn structures_lie_as_in_the_headers() {
    same_layout!(
        abi::LaunchConfig,
        sys::CUlaunchConfig,
        grid = gridDimX,
        block = blockDimX,
        dynamic_shared = sharedMemBytes,
        stream = hStream,
        attributes = attrs,
        attribute_count = numAttrs,
    );
    same_layout!(abi::LaunchAttribute, sys::CUlaunchAttribute, id = id, value = value);
    same_layout!(
        abi::KernelNodeParams,
        sys::CUDA_KERNEL_NODE_PARAMS,
        function = func,
        grid = gridDimX,
        block = blockDimX,
        dynamic_shared = sharedMemBytes,
        params = kernelParams,
        extra = extra,
        kernel = kern,
        context = ctx,
    );
    same_layout!(abi::KernelNodeParamsV1, sys::CUDA_KERNEL_NODE_PARAMS_v1, params = kernelParams);
    same_layout!(
        abi::MemsetNodeParams,
        sys::CUDA_MEMSET_NODE_PARAMS,
        destination = dst,
        pitch = pitch,
        value = value,
        element_size = elementSize,
        width = width,
        height = height,
    );
    same_layout!(abi::HostNodeParams, sys::CUDA_HOST_NODE_PARAMS, function = fn_, data = userData);
    same_layout!(abi::UpdateResult, sys::CUgraphExecUpdateResultInfo, error_node = errorNode);
    same_layout!(abi::InstantiateParams, sys::CUDA_GRAPH_INSTANTIATE_PARAMS, result = result_out);
    same_layout!(abi::IpcMemHandle, sys::CUipcMemHandle, reserved = reserved);
    same_layout!(abi::Location, sys::CUmemLocation, id = id);
    same_layout!(abi::PoolProps, sys::CUmemPoolProps, location = location, max_size = maxSize);
}

#[test]
fn copies_lie_as_in_the_headers() {
    same_layout!(
        abi::Memcpy2D,
        sys::CUDA_MEMCPY2D,
        source = srcXInBytes,
        destination = dstXInBytes,
        width = WidthInBytes,
        height = Height,
    );
    assert_eq!(offset_of!(abi::Memcpy2DSide, pitch), offset_of!(sys::CUDA_MEMCPY2D, srcPitch));
    assert_eq!(offset_of!(abi::Memcpy2DSide, host), offset_of!(sys::CUDA_MEMCPY2D, srcHost));
    same_layout!(
        abi::Memcpy3D,
        sys::CUDA_MEMCPY3D,
        source = srcXInBytes,
        destination = dstXInBytes,
        width = WidthInBytes,
        depth = Depth,
    );
    assert_eq!(offset_of!(abi::Memcpy3DSide, pitch), offset_of!(sys::CUDA_MEMCPY3D, srcPitch));
    assert_eq!(offset_of!(abi::Memcpy3DSide, device), offset_of!(sys::CUDA_MEMCPY3D, srcDevice));
    assert_eq!(offset_of!(abi::Memcpy3DSide, slice_rows), offset_of!(sys::CUDA_MEMCPY3D, srcHeight));
}
