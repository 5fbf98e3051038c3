//! Looking entry points up by name.

use std::ffi::c_void;

use super::abi::{Out, Text};
use super::status::{Result, Status};
use super::{EntryPoint, api};

/// Suffixes of later versions, the latest first.
const SUFFIXES: [&str; 4] = ["_v4", "_v3", "_v2", ""];
/// `CU_GET_PROC_ADDRESS_…`: found, or not.
const FOUND: u32 = 0;
const NOT_FOUND: u32 = 1;

fn rooms() -> [&'static [(&'static str, EntryPoint)]; 22] {
    [
        ENTRIES,
        super::capture::ENTRIES,
        super::context::ENTRIES,
        super::copy::ENTRIES,
        super::counters::ENTRIES,
        super::sample::ENTRIES,
        super::device::ENTRIES,
        super::event::ENTRIES,
        super::function::ENTRIES,
        super::graph::ENTRIES,
        super::graph_exec::ENTRIES,
        super::graph_nodes::ENTRIES,
        super::host_memory::ENTRIES,
        super::ipc::ENTRIES,
        super::launch::ENTRIES,
        super::memory::ENTRIES,
        super::module::ENTRIES,
        super::occupancy::ENTRIES,
        super::peer::ENTRIES,
        super::pool::ENTRIES,
        super::status::ENTRIES,
        super::stream::ENTRIES,
    ]
}

/// The latest version of an entry point.
fn find(name: &str) -> Option<EntryPoint> {
    let of_tensor_maps = super::tensor_map::ENTRIES;
    SUFFIXES.into_iter().find_map(|suffix| {
        let entries = rooms().into_iter().chain([of_tensor_maps]).flatten();
        let mut named = entries.filter(|(entry, _)| entry.strip_prefix(name) == Some(suffix));
        named.next().map(|(_, point)| *point)
    })
}

fn look_up(name: Text, out: Out<*mut c_void>) -> Result<u32> {
    out.check()?;
    match find(name.get()?) {
        Some(EntryPoint(pointer)) => out.set(pointer.cast_mut().cast()).map(|()| FOUND),
        None => out.set(std::ptr::null_mut()).map(|()| NOT_FOUND),
    }
}

api! {
    fn cuGetProcAddress(name: Text, out: Out<*mut c_void>, version: i32, flags: u64) {
        let _latest_whatever = (version, flags);
        if look_up(name, out)? == FOUND { Ok(()) } else { Err(Status::NOT_FOUND) }
    }

    fn cuGetProcAddress_v2(name: Text, out: Out<*mut c_void>, version: i32, flags: u64, found: Out<u32>) {
        let _latest_whatever = (version, flags);
        let status = look_up(name, out)?;
        found.set_if_wanted(status);
        // Asked in this way, an unknown name is no error.
        if status == FOUND || !found.is_null() { Ok(()) } else { Err(Status::NOT_FOUND) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_the_latest_version() {
        let address = |name| find(name).map(|point| point.0 as usize);
        assert_eq!(address("cuMemAlloc"), Some(super::super::memory::cuMemAlloc_v2 as *const () as usize));
        assert_eq!(address("cuInit"), Some(super::super::device::cuInit as *const () as usize));
        assert_eq!(address("cuNoSuchThing"), None);
        assert_eq!(address("cuMemAllo"), None);
    }
}
