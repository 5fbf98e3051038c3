//! Devices: any number alike, of which a process uses one.

use std::ffi::c_char;

use super::abi::{Device, Handle, In, Out, Text};
use super::attributes::{attribute, name};
use super::state::Driver;
use super::status::{Result, Status};
use super::{api, complain, lock, unsupported, with_driver};
use crate::machine::Profile;

impl Driver {
    /// Refuses a device that is not there.
    pub fn check_device(&self, device: Device) -> Result {
        let there = 0..self.machine.options.devices;
        if there.contains(&device) { Ok(()) } else { Err(Status::INVALID_DEVICE) }
    }

    /// Makes a device the one of this process, whose memory and kernels are emulated.
    pub fn take_device(&mut self, device: Device) -> Result {
        self.check_device(device)?;
        match *self.device.get_or_insert(device) {
            own if own == device => Ok(()),
            own => unsupported(&format!("device {device} beside device {own} in one process")),
        }
    }

    /// The device of this process; before it has taken one, the first.
    pub fn own_device(&self) -> Device {
        self.device.unwrap_or(0)
    }
}

/// Writes a string, cut off where the buffer ends, with its terminator.
fn set_text(out: Out<c_char>, len: i32, text: &str) -> Result {
    let len = usize::try_from(len).map_err(|_| Status::INVALID_VALUE)?;
    if len == 0 {
        return Err(Status::INVALID_VALUE);
    }
    let bytes = text.bytes().take(len - 1).chain([0]);
    out.set_all(bytes.map(|byte| byte as c_char))
}

/// An identity that differs between the profiles and between devices.
fn uuid(profile: Profile, device: Device) -> [u8; 16] {
    let mut uuid = match profile {
        Profile::A100 => *b"emulated A100 00",
        Profile::H100 => *b"emulated H100 00",
    };
    uuid[15] += device as u8;
    uuid
}

/// Numbers of the attributes of the compute capability.
const MAJOR: u32 = 75;
const MINOR: u32 = 76;

/// An attribute as the device claims it.
fn claimed(driver: &Driver, device: Device, number: u32) -> Result<i32> {
    let options = &driver.machine.options;
    match (options.capability, number) {
        (Some(capability), MAJOR) => Ok((capability / 10) as i32),
        (Some(capability), MINOR) => Ok((capability % 10) as i32),
        (_, BUS) => attribute(options.profile, BUS).map(|bus| bus + device).ok_or(Status::INVALID_VALUE),
        _ => attribute(options.profile, number).ok_or(Status::INVALID_VALUE),
    }
}

/// `CU_DEVICE_ATTRIBUTE_PCI_BUS_ID`.
const BUS: u32 = 33;

/// Where a device seems to be plugged in.
fn bus_id(driver: &Driver, device: Device) -> String {
    let bus = attribute(driver.machine.options.profile, BUS).unwrap_or(0) + device;
    format!("0000:{bus:02X}:00.0")
}

/// `CUdevprop`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Properties {
    threads: i32,
    block: [i32; 3],
    grid: [i32; 3],
    shared: i32,
    constant: i32,
    warp: i32,
    pitch: i32,
    registers: i32,
    clock: i32,
    texture_alignment: i32,
}

fn get_uuid(out: Out<[u8; 16]>, device: Device) -> Result {
    with_driver(|driver| {
        driver.check_device(device)?;
        out.set(uuid(driver.machine.options.profile, device))
    })
}

api! {
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Status::INVALID_VALUE);
        }
        let mut driver = lock();
        if driver.is_none() {
            let new = Driver::from_environment().map_err(|message| {
                complain(&message);
                Status::INVALID_DEVICE
            })?;
            if !new.machine.options.present {
                return Err(Status::NO_DEVICE);
            }
            *driver = Some(new);
            super::counters::report_at_exit();
        }
        Ok(())
    }

    fn cuDriverGetVersion(out: Out<i32>) {
        with_driver(|driver| out.set(driver.machine.options.version))
    }

    fn cuDeviceGet(out: Out<Device>, ordinal: i32) {
        with_driver(|driver| {
            driver.check_device(ordinal)?;
            out.set(ordinal)
        })
    }

    fn cuDeviceGetCount(out: Out<i32>) {
        with_driver(|driver| out.set(driver.machine.options.devices))
    }

    fn cuDeviceGetName(out: Out<c_char>, len: i32, device: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            set_text(out, len, name(driver.machine.options.profile))
        })
    }

    fn cuDeviceGetUuid(out: Out<[u8; 16]>, device: Device) {
        get_uuid(out, device)
    }

    fn cuDeviceGetUuid_v2(out: Out<[u8; 16]>, device: Device) {
        get_uuid(out, device)
    }

    fn cuDeviceTotalMem_v2(out: Out<usize>, device: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            out.set(driver.machine.memory.info().1 as usize)
        })
    }

    fn cuDeviceGetAttribute(out: Out<i32>, number: u32, device: Device) {
        with_driver(|driver| {
            out.check()?;
            driver.check_device(device)?;
            out.set(claimed(driver, device, number)?)
        })
    }

    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            major.set(claimed(driver, device, MAJOR)?)?;
            minor.set(claimed(driver, device, MINOR)?)
        })
    }

    fn cuDeviceGetProperties(out: Out<Properties>, device: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            let get = |number| attribute(driver.machine.options.profile, number).unwrap_or(0);
            out.set(Properties {
                threads: get(1),
                block: [get(2), get(3), get(4)],
                grid: [get(5), get(6), get(7)],
                shared: get(8),
                constant: get(9),
                warp: get(10),
                pitch: get(11),
                registers: get(12),
                clock: get(13),
                texture_alignment: get(14),
            })
        })
    }

    fn cuDeviceGetPCIBusId(out: Out<c_char>, len: i32, device: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            set_text(out, len, &bus_id(driver, device))
        })
    }

    fn cuDeviceGetByPCIBusId(out: Out<Device>, text: Text) {
        with_driver(|driver| {
            let text = text.get()?;
            let named = |device: &Device| text.eq_ignore_ascii_case(&bus_id(driver, *device));
            match (0..driver.machine.options.devices).find(named) {
                Some(device) => out.set(device),
                None => Err(Status::INVALID_DEVICE),
            }
        })
    }

    fn cuDeviceGetDefaultMemPool(out: Out<Handle>, device: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            out.set(driver.device_pools[0])
        })
    }

    fn cuDeviceGetMemPool(out: Out<Handle>, device: Device) {
        with_driver(|driver| {
            driver.check_device(device)?;
            out.set(driver.device_pools[1])
        })
    }

    fn cuDeviceSetMemPool(device: Device, pool: Handle) {
        with_driver(|driver| {
            driver.check_device(device)?;
            driver.pool(pool)?;
            driver.device_pools[1] = pool;
            Ok(())
        })
    }

    fn cuProfilerStart() {
        super::with_context(|_, _| Ok(()))
    }

    fn cuProfilerStop() {
        super::with_context(|_, _| Ok(()))
    }

    fn cuModuleGetLoadingMode(out: Out<u32>) {
        // Eager: everything is decoded when it is loaded.
        with_driver(|_| out.set(1))
    }

    fn cuGetExportTable(out: Out<*const std::ffi::c_void>, id: In<[u8; 16]>) {
        id.get()?;
        out.set(std::ptr::null())?;
        Err(Status::NOT_FOUND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_that_no_device_has_is_refused() {
        let driver = Driver::from_environment().expect("a driver");
        assert!(claimed(&driver, 0, MAJOR).is_ok());
        assert_eq!(claimed(&driver, 0, 9999), Err(Status::INVALID_VALUE));
    }
}
