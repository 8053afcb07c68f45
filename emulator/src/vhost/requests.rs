//! The vhost-user messages, as the `vhost` crate has taken them apart, handed to the session.

use super::error::SessionError;
use super::session::{Session, protocol_features};
use super::vring::RingAddress;
use crate::ring::{GuestMemory, MAX_MEM_SLOTS, MemoryError, RegionSpec};
use std::fs::File;
use std::io;
use vhost::VhostUserMemoryRegionBase as Base;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
};

impl Session {
    /// Hands an outcome to the library, which answers the client, and keeps what ends the session.
    fn settle<T>(&mut self, outcome: std::result::Result<T, SessionError>) -> Result<T> {
        outcome.map_err(|error| {
            let text = error.to_string();
            if !error.is_refusal() {
                self.set_fault(error);
            }
            Error::ReqHandlerError(io::Error::other(text))
        })
    }

    /// A request that belongs to a feature we do not offer, sent all the same.
    fn unsupported<T>(&mut self, request: &str) -> Result<T> {
        let reason = "not supported, and not offered".into();
        self.settle(Err(SessionError::Message {
            request: request.into(),
            reason,
        }))
    }

    fn has_region(&self, spec: &RegionSpec) -> bool {
        self.mem.as_ref().is_some_and(|mem| mem.has_region(spec))
    }

    fn replace_memory(
        &mut self,
        request: &'static str,
        memory: std::result::Result<std::sync::Arc<GuestMemory>, MemoryError>,
    ) -> std::result::Result<(), SessionError> {
        let memory = memory.map_err(|source| SessionError::Memory { request, source })?;
        self.pause();
        self.mem = Some(memory);
        self.resume()
    }
}

fn spec(region: &VhostUserMemoryRegion) -> RegionSpec {
    RegionSpec {
        gpa: region.guest_phys_addr,
        size: region.memory_size,
        uva: region.user_addr,
        mmap_offset: region.mmap_offset,
    }
}

impl VhostUserBackendReqHandlerMut for Session {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.disable_all();
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.offered())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        let outcome = self.accept_features(features);
        self.settle(outcome)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(protocol_features())
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let outcome = self.accept_protocol(features);
        self.settle(outcome)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<Base>>> {
        let regions = regions.iter().map(spec).zip(files).collect();
        let outcome = self.replace_memory("SET_MEM_TABLE", GuestMemory::new(regions));
        self.settle(outcome.map(|()| None))
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_MEM_SLOTS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<Base>> {
        let spec = spec(region);
        if self.has_region(&spec) {
            // QEMU before 8.1 says it once for every queue pair.
            return Ok(None);
        }
        let memory = match &self.mem {
            Some(mem) => mem.with_region(&spec, &file),
            None => GuestMemory::new(vec![(spec, file)]),
        };
        let outcome = self.replace_memory("ADD_MEM_REG", memory);
        self.settle(outcome.map(|()| None))
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let spec = spec(region);
        let Some(mem) = self.mem.as_ref().filter(|_| self.has_region(&spec)) else {
            // As for ADD_MEM_REG: it has been removed for another queue pair.
            return Ok(());
        };
        let memory = mem.without_region(&spec);
        let outcome = self.replace_memory("REM_MEM_REG", memory);
        self.settle(outcome)
    }

    /// Rings, the control queue included. virtio-net frontends disagree on the unit: QEMU compares
    /// with queue pairs, cloud-hypervisor and the `vhost` crate with rings. Rings lets all of them
    /// in; QEMU with too many pairs is told when it sets up the first ring that is not there.
    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(2 * u64::from(self.device.max_queue_pairs()) + 1)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let outcome = self.set_size(index, num);
        self.settle(outcome)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        if !flags.is_empty() {
            return self.unsupported("SET_VRING_ADDR with a dirty log");
        }
        let address = RingAddress {
            desc: descriptor,
            avail: available,
            used,
        };
        let outcome = self.set_address(index, address);
        self.settle(outcome)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let outcome = self.set_base(index, base);
        self.settle(outcome)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let outcome = self.stop_for_base(index);
        let base = self.settle(outcome)?;
        Ok(VhostUserVringState::new(index, base))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let outcome = self.set_kick(index, fd.map(Into::into));
        self.settle(outcome)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let outcome = self.set_call(index, fd.map(Into::into));
        self.settle(outcome)
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        let outcome = self.set_err(index, fd.map(Into::into));
        self.settle(outcome)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let outcome = self.enable(index, enable);
        self.settle(outcome)
    }

    fn get_config(
        &mut self,
        offset: u32,
        size: u32,
        _flags: VhostUserConfigFlags,
    ) -> Result<Vec<u8>> {
        // The library answers an error with an empty config, as the protocol has it.
        self.config().read(offset, size).ok_or(Error::InvalidParam)
    }

    fn set_config(&mut self, offset: u32, buf: &[u8], flags: VhostUserConfigFlags) -> Result<()> {
        let outcome = if flags.contains(VhostUserConfigFlags::LIVE_MIGRATION) {
            let reason = "a device's config does not migrate".into();
            Err(SessionError::Refused {
                request: "SET_CONFIG",
                reason,
            })
        } else {
            self.write_config(offset, buf)
        };
        self.settle(outcome)
    }

    fn set_gpu_socket(&mut self, _gpu_backend: GpuBackend) -> Result<()> {
        self.unsupported("GPU_SET_SOCKET")
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        self.unsupported("GET_SHARED_OBJECT")
    }

    fn get_inflight_fd(
        &mut self,
        _inflight: &VhostUserInflight,
    ) -> Result<(VhostUserInflight, File)> {
        self.unsupported("GET_INFLIGHT_FD")
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        self.unsupported("SET_INFLIGHT_FD")
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _fd: File,
    ) -> Result<Option<File>> {
        self.unsupported("SET_DEVICE_STATE_FD")
    }

    fn check_device_state(&mut self) -> Result<()> {
        self.unsupported("CHECK_DEVICE_STATE")
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        self.unsupported("GET_SHMEM_CONFIG")
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        self.unsupported("SET_LOG_BASE")
    }
}
