//! Device memory that several processes use.

use std::io;

use bytemuck::{Pod, Zeroable};

use super::abi::{Device, Handle, IpcMemHandle, Out};
use super::memory::{Allocation, Origin};
use super::state::Driver;
use super::status::{Result, Status};
use super::{api, complain, unsupported, with_context};
use crate::memory::between::Place;

/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`.
const LAZY_PEER_ACCESS: u32 = 1;
/// How a handle begins.
const MARK: [u8; 8] = *b"dgemuIPC";

/// What a `CUipcMemHandle` says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Export {
    mark: [u8; 8],
    place: Place,
    /// The device that the memory is on.
    pub device: Device,
    rest: [u32; 5],
}

impl Export {
    fn of(handle: IpcMemHandle) -> Result<Export> {
        let export: Export = bytemuck::cast(handle.reserved);
        if export.mark == MARK { Ok(export) } else { Err(Status::INVALID_VALUE) }
    }
}

impl Driver {
    /// The handle of the allocation that `address` lies in. Memory of pools, of the host and of other
    /// processes has none.
    fn export(&mut self, address: u64) -> Result<IpcMemHandle> {
        let (base, allocation) = self.allocation_around(address)?;
        if !matches!(allocation.origin, Origin::Device { pool: None }) {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: whatever is queued runs within a call of the driver, and this call is the only one now.
        let place = unsafe { self.machine.memory.export(base) }.map_err(|error| {
            complain(&format!("memory cannot be exported: {error}"));
            Status::OUT_OF_MEMORY
        })?;
        let export = Export { mark: MARK, place, device: self.own_device(), rest: [0; 5] };
        Ok(IpcMemHandle { reserved: bytemuck::cast(export) })
    }

    /// The address at which a context has the memory of a handle from here on.
    fn open(&mut self, context: Handle, export: Export) -> Result<u64> {
        self.refuse_while_capturing()?;
        if export.place.process == std::process::id() {
            return Err(Status::INVALID_CONTEXT);
        }
        if let Some(address) = self.open_again(context, &export)? {
            return Ok(address);
        }
        let (address, len) = self.machine.memory.import(&export.place).map_err(|error| {
            complain(&format!("memory of process {} cannot be mapped: {error}", export.place.process));
            let full = error.kind() == io::ErrorKind::OutOfMemory;
            if full { Status::MAP_FAILED } else { Status::INVALID_HANDLE }
        })?;
        let origin = Origin::Imported { export, opens: 1 };
        self.allocations.insert(address, Allocation { len, context, origin, dying: false, on_host: None });
        Ok(address)
    }

    /// Counts one more opening of what a context has open. While it has memory of a process, no other
    /// context may have any.
    fn open_again(&mut self, context: Handle, export: &Export) -> Result<Option<u64>> {
        for (address, allocation) in &mut self.allocations {
            let Origin::Imported { export: other, opens } = &mut allocation.origin else { continue };
            if other.place.process != export.place.process {
                continue;
            }
            if allocation.context != context {
                return Err(Status::INVALID_HANDLE);
            }
            if other == export {
                *opens += 1;
                return Ok(Some(*address));
            }
        }
        Ok(None)
    }

    /// Closes what was opened once; after the last time it is gone, for this process only.
    fn close(&mut self, context: Handle, address: u64) -> Result {
        if let Some(allocation) = self.allocations.get_mut(&address)
            && let Origin::Imported { opens, .. } = &mut allocation.origin
            && *opens > 1
        {
            *opens -= 1;
            return Ok(());
        }
        let imported = |origin: &Origin| matches!(origin, Origin::Imported { .. });
        self.unmap(context, address, imported, Status::INVALID_VALUE)
    }
}

/// Refuses what only Linux has the means for.
fn check_system() -> Result {
    if cfg!(target_os = "linux") { Ok(()) } else { unsupported("device memory of several processes") }
}

api! {
    fn cuIpcGetMemHandle(out: Out<IpcMemHandle>, address: u64) {
        check_system()?;
        out.check()?;
        with_context(|driver, _| out.set(driver.export(address)?))
    }

    fn cuIpcOpenMemHandle_v2(out: Out<u64>, handle: IpcMemHandle, flags: u32) {
        check_system()?;
        out.check()?;
        if flags != LAZY_PEER_ACCESS {
            return Err(Status::INVALID_VALUE);
        }
        let export = Export::of(handle)?;
        with_context(|driver, context| out.set(driver.open(context, export)?))
    }

    fn cuIpcCloseMemHandle(address: u64) {
        check_system()?;
        with_context(|driver, context| driver.close(context, address))
    }
}
