//! Copies and fills.

use std::ffi::c_void;
use std::sync::Arc;

use super::abi::{Handle, Memcpy2D, Memcpy3D, memory_type};
use super::state::Driver;
use super::status::{Result, Status};
use super::stream::with_stream;
use super::work::Work;
use super::{api, unsupported, with_context};
use crate::memory::global::GlobalMemory;
use crate::report::Fault;

/// Where one side of a copy is.
#[derive(Clone, Debug)]
pub enum Place {
    /// Memory that the device can access, pinned host memory included.
    Device(u64),
    /// Pageable host memory.
    Host(u64),
    /// Bytes that were taken from pageable host memory when the copy was queued, row by row.
    Staged(Arc<[u8]>),
}

/// One side of a copy.
#[derive(Clone, Debug)]
pub struct Side {
    /// Where it begins.
    pub place: Place,
    /// Bytes from row to row.
    pub pitch: u64,
    /// Bytes from slice to slice.
    pub slice: u64,
}

/// A copy of up to three dimensions.
#[derive(Clone, Debug)]
pub struct Copy {
    /// From where.
    pub source: Side,
    /// To where.
    pub destination: Side,
    /// Bytes of a row, rows, slices.
    pub size: [u64; 3],
}

impl Copy {
    /// A copy of `len` bytes in a row.
    pub fn linear(destination: Place, source: Place, len: u64) -> Copy {
        let side = |place| Side { place, pitch: len, slice: len };
        Copy { source: side(source), destination: side(destination), size: [len, 1, 1] }
    }

    fn rows(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let [_, height, depth] = self.size;
        (0..depth).flat_map(move |z| (0..height).map(move |y| (z, y)))
    }

    /// Takes the bytes of pageable host memory now, for later nobody promises that they are still there.
    pub fn stage(&mut self) {
        let Place::Host(address) = self.source.place else { return };
        let width = self.size[0];
        let mut bytes = Vec::with_capacity(self.size.iter().product::<u64>() as usize);
        for (z, y) in self.rows() {
            let row = address + z * self.source.slice + y * self.source.pitch;
            // SAFETY: the caller of the copy promises that the source is readable.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(row as *const u8, width as usize) });
        }
        let height = self.size[1];
        self.source = Side { place: Place::Staged(bytes.into()), pitch: width, slice: width * height };
    }

    /// Copies.
    pub fn run(&self, memory: &GlobalMemory) -> std::result::Result<(), Box<Fault>> {
        let width = self.size[0];
        if width == 0 {
            return Ok(());
        }
        for (z, y) in self.rows() {
            let source = z * self.source.slice + y * self.source.pitch;
            let destination = z * self.destination.slice + y * self.destination.pitch;
            self.copy_row(memory, destination, source, width)?;
        }
        Ok(())
    }

    fn copy_row(
        &self,
        memory: &GlobalMemory,
        destination: u64,
        source: u64,
        width: u64,
    ) -> std::result::Result<(), Box<Fault>> {
        let readable = |address: u64| {
            let row = (address + source) as *const u8;
            // SAFETY: the caller of the copy promises that the source stays readable until the copy is done.
            unsafe { std::slice::from_raw_parts(row, width as usize) }
        };
        let writable = |address: u64| {
            let row = (address + destination) as *mut u8;
            // SAFETY: the caller of the copy promises that nobody else uses the destination until the copy is
            // done.
            unsafe { std::slice::from_raw_parts_mut(row, width as usize) }
        };
        let staged = |bytes: &Arc<[u8]>| bytes[source as usize..(source + width) as usize].to_vec();
        match (&self.destination.place, &self.source.place) {
            (Place::Device(to), Place::Device(from)) => memory.copy(to + destination, from + source, width),
            (Place::Device(to), Place::Host(from)) => memory.write(to + destination, readable(*from)),
            (Place::Device(to), Place::Staged(bytes)) => memory.write(to + destination, &staged(bytes)),
            (Place::Host(to), Place::Device(from)) => memory.read(from + source, writable(*to)),
            (Place::Host(to), Place::Host(from)) => {
                let (to, from) = ((to + destination) as *mut u8, (from + source) as *const u8);
                // SAFETY: as for the two above, which may overlap.
                unsafe { std::ptr::copy(from, to, width as usize) };
                Ok(())
            }
            (Place::Host(to), Place::Staged(bytes)) => {
                writable(*to).copy_from_slice(&staged(bytes));
                Ok(())
            }
            (Place::Staged(_), _) => Ok(()),
        }
    }
}

/// Writes a pattern again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Where.
    pub address: u64,
    /// Bytes from row to row.
    pub pitch: u64,
    /// The pattern.
    pub value: u32,
    /// Its bytes: 1, 2 or 4.
    pub element: u32,
    /// Elements of a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
}

impl Fill {
    fn linear(address: u64, value: u32, element: u32, count: usize) -> Fill {
        Fill { address, pitch: 0, value, element, width: count as u64, height: 1 }
    }

    /// Fills.
    pub fn run(&self, memory: &GlobalMemory) -> std::result::Result<(), Box<Fault>> {
        let pattern = &self.value.to_le_bytes()[..self.element as usize];
        (0..self.height).try_for_each(|y| memory.fill(self.address + y * self.pitch, pattern, self.width))
    }

    /// Refuses what the device would not do.
    pub fn check(&self, driver: &Driver) -> Result {
        if !matches!(self.element, 1 | 2 | 4) || !self.address.is_multiple_of(self.element.into()) {
            return Err(Status::INVALID_VALUE);
        }
        let row = self.width.checked_mul(self.element.into()).ok_or(Status::INVALID_VALUE)?;
        if self.height > 1 && (self.pitch < row || !self.pitch.is_multiple_of(self.element.into())) {
            return Err(Status::INVALID_VALUE);
        }
        driver.check_rows(self.address, row, self.height, self.pitch)
    }
}

impl Driver {
    /// Refuses memory that the device cannot access.
    pub fn check_range(&self, address: u64, len: usize) -> Result {
        if len == 0 || self.machine.memory.find(address, len as u64).is_ok() {
            Ok(())
        } else {
            Err(Status::INVALID_VALUE)
        }
    }

    fn check_rows(&self, address: u64, row: u64, rows: u64, pitch: u64) -> Result {
        if row == 0 || rows == 0 {
            return Ok(());
        }
        let before = (rows - 1).checked_mul(pitch).ok_or(Status::INVALID_VALUE)?;
        let len = before.checked_add(row).ok_or(Status::INVALID_VALUE)?;
        self.check_range(address, usize::try_from(len).map_err(|_| Status::INVALID_VALUE)?)
    }

    /// Device memory that a copy names.
    fn device_place(&self, address: u64, len: usize) -> Result<Place> {
        self.check_range(address, len)?;
        Ok(Place::Device(address))
    }

    /// Host memory that a copy names; pinned memory is known to the device.
    fn host_place(&self, address: u64, len: usize) -> Result<Place> {
        if len > 0 && address == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let pinned = len > 0 && self.machine.memory.find(address, len as u64).is_ok();
        Ok(if pinned { Place::Device(address) } else { Place::Host(address) })
    }

    /// Queues a copy in a stream. As the driver documents it, the host waits if the copy goes to pageable
    /// memory.
    fn queue_copy(&mut self, stream: Handle, mut copy: Copy) -> Result {
        if copy.size.contains(&0) {
            return Ok(());
        }
        if self.stream(stream)?.capture.is_none() {
            copy.stage();
        }
        let waits = matches!(copy.destination.place, Place::Host(_));
        let op = self.submit(stream, Work::Copy(Arc::new(copy)))?;
        match op.filter(|_| waits) {
            Some(op) => {
                let context = self.stream(stream)?.context;
                self.run_until(context, &[op])
            }
            None => Ok(()),
        }
    }

    /// Does a copy for a call without a stream. The host waits, unless both sides are the device's.
    fn copy_now(&mut self, context: Handle, mut copy: Copy) -> Result {
        if copy.size.contains(&0) {
            return Ok(());
        }
        copy.stage();
        let both =
            matches!((&copy.source.place, &copy.destination.place), (Place::Device(_), Place::Device(_)));
        let work = Work::Copy(Arc::new(copy));
        if both { self.submit_legacy(context, work).map(|_| ()) } else { self.submit_and_wait(context, work) }
    }

    /// A copy as `CUDA_MEMCPY3D` describes it.
    pub fn copy_3d(&self, p: &Memcpy3D) -> Result<Copy> {
        let size = [p.width as u64, p.height as u64, p.depth as u64];
        let side = |side: &super::abi::Memcpy3DSide| self.side_3d(side, size);
        Ok(Copy { source: side(&p.source)?, destination: side(&p.destination)?, size })
    }

    fn side_3d(&self, side: &super::abi::Memcpy3DSide, size: [u64; 3]) -> Result<Side> {
        let [width, height, depth] = size;
        if side.level != 0 || side.reserved != 0 {
            return Err(Status::INVALID_VALUE);
        }
        let pitch = if side.pitch == 0 { width } else { side.pitch as u64 };
        let rows = if side.slice_rows == 0 { height } else { side.slice_rows as u64 };
        if (height > 1 || depth > 1) && pitch < side.x as u64 + width || depth > 1 && rows < height {
            return Err(Status::INVALID_VALUE);
        }
        let slice = pitch.checked_mul(rows).ok_or(Status::INVALID_VALUE)?;
        let start = side.x as u64 + side.y as u64 * pitch + side.z as u64 * slice;
        let empty = size.contains(&0);
        let len = if empty { 0 } else { (depth - 1) * slice + (height - 1) * pitch + width } as usize;
        let place = match side.memory_type {
            memory_type::HOST => self.host_place(side.host + start, len)?,
            memory_type::DEVICE => self.device_place(side.device + start, len)?,
            memory_type::UNIFIED => self.host_place(side.device + start, len)?,
            memory_type::ARRAY => return unsupported("an array in a copy"),
            _ => return Err(Status::INVALID_VALUE),
        };
        Ok(Side { place, pitch, slice })
    }

    fn copy_2d(&self, p: &Memcpy2D) -> Result<Copy> {
        let side = |s: super::abi::Memcpy2DSide| super::abi::Memcpy3DSide {
            x: s.x,
            y: s.y,
            z: 0,
            level: 0,
            memory_type: s.memory_type,
            host: s.host,
            device: s.device,
            array: s.array,
            reserved: 0,
            pitch: s.pitch,
            slice_rows: 0,
        };
        let (source, destination) = (side(p.source), side(p.destination));
        self.copy_3d(&Memcpy3D { source, destination, width: p.width, height: p.height, depth: 1 })
    }
}

type Places = Result<(Place, Place)>;

/// A linear copy in a stream; `places` says what destination and source are.
fn copy_async(stream: Handle, len: usize, places: impl FnOnce(&Driver) -> Places) -> Result {
    with_stream(stream, |driver, stream| {
        let (destination, source) = places(driver)?;
        driver.queue_copy(stream, Copy::linear(destination, source, len as u64))
    })
}

/// A linear copy without a stream.
fn copy_sync(len: usize, places: impl FnOnce(&Driver) -> Places) -> Result {
    with_context(|driver, context| {
        let (destination, source) = places(driver)?;
        driver.copy_now(context, Copy::linear(destination, source, len as u64))
    })
}

fn fill_async(stream: Handle, fill: Fill) -> Result {
    with_stream(stream, |driver, stream| {
        fill.check(driver)?;
        if fill.width == 0 || fill.height == 0 {
            return Ok(());
        }
        driver.submit(stream, Work::Fill(fill)).map(|_| ())
    })
}

/// Fills without a stream; as on the device, the host does not wait.
fn fill_legacy(fill: Fill) -> Result {
    with_context(|driver, context| {
        fill.check(driver)?;
        if fill.width == 0 || fill.height == 0 {
            return Ok(());
        }
        driver.submit_legacy(context, Work::Fill(fill)).map(|_| ())
    })
}

fn fill_2d(address: u64, pitch: usize, value: u32, element: u32, width: usize, height: usize) -> Fill {
    Fill { address, pitch: pitch as u64, value, element, width: width as u64, height: height as u64 }
}

api! {
    fn cuMemcpy(destination: u64, source: u64, len: usize) {
        copy_sync(len, |d| Ok((d.host_place(destination, len)?, d.host_place(source, len)?)))
    }

    fn cuMemcpyAsync(destination: u64, source: u64, len: usize, stream: Handle) {
        copy_async(stream, len, |d| Ok((d.host_place(destination, len)?, d.host_place(source, len)?)))
    }

    fn cuMemcpyHtoD_v2(destination: u64, source: *const c_void, len: usize) {
        copy_sync(len, |d| Ok((d.device_place(destination, len)?, d.host_place(source as u64, len)?)))
    }

    fn cuMemcpyHtoDAsync_v2(destination: u64, source: *const c_void, len: usize, stream: Handle) {
        copy_async(stream, len, |d| Ok((d.device_place(destination, len)?, d.host_place(source as u64, len)?)))
    }

    fn cuMemcpyDtoH_v2(destination: *mut c_void, source: u64, len: usize) {
        copy_sync(len, |d| Ok((d.host_place(destination as u64, len)?, d.device_place(source, len)?)))
    }

    fn cuMemcpyDtoHAsync_v2(destination: *mut c_void, source: u64, len: usize, stream: Handle) {
        copy_async(stream, len, |d| Ok((d.host_place(destination as u64, len)?, d.device_place(source, len)?)))
    }

    fn cuMemcpyDtoD_v2(destination: u64, source: u64, len: usize) {
        copy_sync(len, |d| Ok((d.device_place(destination, len)?, d.device_place(source, len)?)))
    }

    fn cuMemcpyDtoDAsync_v2(destination: u64, source: u64, len: usize, stream: Handle) {
        copy_async(stream, len, |d| Ok((d.device_place(destination, len)?, d.device_place(source, len)?)))
    }

    fn cuMemcpyPeerAsync(
        destination: u64, to_context: Handle, source: u64, from_context: Handle, len: usize, stream: Handle,
    ) {
        copy_async(stream, len, |d| {
            d.check_sound(to_context)?;
            d.check_sound(from_context)?;
            Ok((d.device_place(destination, len)?, d.device_place(source, len)?))
        })
    }

    fn cuMemcpy2D_v2(params: super::abi::In<Memcpy2D>) {
        let params = params.get()?;
        with_context(|driver, context| driver.copy_now(context, driver.copy_2d(&params)?))
    }

    fn cuMemcpy2DUnaligned_v2(params: super::abi::In<Memcpy2D>) {
        let params = params.get()?;
        with_context(|driver, context| driver.copy_now(context, driver.copy_2d(&params)?))
    }

    fn cuMemcpy2DAsync_v2(params: super::abi::In<Memcpy2D>, stream: Handle) {
        let params = params.get()?;
        with_stream(stream, |driver, stream| driver.queue_copy(stream, driver.copy_2d(&params)?))
    }

    fn cuMemcpy3D_v2(params: super::abi::In<Memcpy3D>) {
        let params = params.get()?;
        with_context(|driver, context| driver.copy_now(context, driver.copy_3d(&params)?))
    }

    fn cuMemcpy3DAsync_v2(params: super::abi::In<Memcpy3D>, stream: Handle) {
        let params = params.get()?;
        with_stream(stream, |driver, stream| driver.queue_copy(stream, driver.copy_3d(&params)?))
    }

    fn cuMemsetD8_v2(address: u64, value: u8, count: usize) {
        fill_legacy(Fill::linear(address, value.into(), 1, count))
    }

    fn cuMemsetD16_v2(address: u64, value: u16, count: usize) {
        fill_legacy(Fill::linear(address, value.into(), 2, count))
    }

    fn cuMemsetD32_v2(address: u64, value: u32, count: usize) {
        fill_legacy(Fill::linear(address, value, 4, count))
    }

    fn cuMemsetD8Async(address: u64, value: u8, count: usize, stream: Handle) {
        fill_async(stream, Fill::linear(address, value.into(), 1, count))
    }

    fn cuMemsetD16Async(address: u64, value: u16, count: usize, stream: Handle) {
        fill_async(stream, Fill::linear(address, value.into(), 2, count))
    }

    fn cuMemsetD32Async(address: u64, value: u32, count: usize, stream: Handle) {
        fill_async(stream, Fill::linear(address, value, 4, count))
    }

    fn cuMemsetD2D8_v2(address: u64, pitch: usize, value: u8, width: usize, height: usize) {
        fill_legacy(fill_2d(address, pitch, value.into(), 1, width, height))
    }

    fn cuMemsetD2D16_v2(address: u64, pitch: usize, value: u16, width: usize, height: usize) {
        fill_legacy(fill_2d(address, pitch, value.into(), 2, width, height))
    }

    fn cuMemsetD2D32_v2(address: u64, pitch: usize, value: u32, width: usize, height: usize) {
        fill_legacy(fill_2d(address, pitch, value, 4, width, height))
    }

    fn cuMemsetD2D8Async(address: u64, pitch: usize, value: u8, width: usize, height: usize, stream: Handle) {
        fill_async(stream, fill_2d(address, pitch, value.into(), 1, width, height))
    }

    fn cuMemsetD2D16Async(address: u64, pitch: usize, value: u16, width: usize, height: usize, stream: Handle) {
        fill_async(stream, fill_2d(address, pitch, value.into(), 2, width, height))
    }

    fn cuMemsetD2D32Async(address: u64, pitch: usize, value: u32, width: usize, height: usize, stream: Handle) {
        fill_async(stream, fill_2d(address, pitch, value, 4, width, height))
    }
}
