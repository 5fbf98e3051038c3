//! Access of devices to each other's memory.

use super::abi::{Device, Handle, Out};
use super::status::Status;
use super::{api, with_context, with_driver};

api! {
    fn cuDeviceCanAccessPeer(out: Out<i32>, device: Device, peer: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            driver.check_device(peer)?;
            // No device is a peer of its own.
            out.set(i32::from(device != peer))
        })
    }

    // The contexts of a process are all on its one device, so none has a peer. Memory of other devices comes
    // from other processes, and whoever opens that gets access with it.
    fn cuCtxEnablePeerAccess(peer: Handle, flags: u32) {
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        with_context(|driver, context| {
            driver.context(peer)?;
            let itself = peer == context;
            Err(if itself { Status::INVALID_CONTEXT } else { Status::PEER_ACCESS_UNSUPPORTED })
        })
    }

    fn cuCtxDisablePeerAccess(peer: Handle) {
        with_context(|driver, _| {
            driver.context(peer)?;
            Err(Status::PEER_ACCESS_NOT_ENABLED)
        })
    }
}
