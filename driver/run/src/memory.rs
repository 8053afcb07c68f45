//! The program's memory, as far as a system call's arguments point into it. All of it is read
//! once, bounded, and used as read.

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use std::io::{IoSlice, IoSliceMut};

/// How many buffers one call may name (UIO_MAXIOV).
const MAX_BUFFERS: usize = 1024;
/// The longest datagram that is taken: far above the kernel's send buffers.
pub const MAX_DATAGRAM: usize = 1 << 20;

/// One thread's memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory(Pid);

/// A buffer in it (struct iovec).
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Where it starts.
    pub at: u64,
    /// How long it is.
    pub len: usize,
}

/// struct msghdr of a 64-bit program.
#[derive(Clone, Copy, Debug)]
pub struct MessageHeader {
    /// Where it stands.
    pub at: u64,
    /// Where the address is.
    pub name: u64,
    /// Room for the address.
    pub name_len: u32,
    /// Where the buffers are.
    pub buffers: u64,
    /// How many there are.
    pub buffer_count: usize,
}

impl MessageHeader {
    const SIZE: usize = 56;
    const NAME_LEN: u64 = 8;
    const CONTROL_LEN: u64 = 40;
    const FLAGS: u64 = 48;
}

impl Memory {
    /// Of this thread.
    pub fn of(thread: u32) -> Self {
        Memory(Pid::from_raw(thread.cast_signed()))
    }

    /// Reads so many bytes.
    pub fn read(&self, at: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; len];
        let remote = [RemoteIoVec {
            base: at as usize,
            len,
        }];
        match process_vm_readv(self.0, &mut [IoSliceMut::new(&mut bytes)], &remote)? {
            all if all == len => Ok(bytes),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Reads a text that ends with a NUL, which is not among the bytes returned.
    pub fn read_text(&self, at: u64, max: usize) -> Result<Vec<u8>, Errno> {
        const PAGE: u64 = 4096;
        let mut text = Vec::new();
        while text.len() < max {
            // No further than the page, behind which there may be nothing.
            let from = at + text.len() as u64;
            let len = (PAGE - from % PAGE) as usize;
            let part = self.read(from, len.min(max - text.len()))?;
            match part.iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(&part[..end]);
                    return Ok(text);
                }
                None => text.extend(part),
            }
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Writes a struct stat, which is the kernel's on 64-bit machines.
    pub fn write_stat(&self, at: u64, stat: &libc::stat) -> Result<(), Errno> {
        let size = size_of::<libc::stat>();
        // SAFETY: the struct is alive, and all of its bytes are of some field: what would be padding
        // is fields of their own on the machines that the filter knows.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const *stat).cast::<u8>(), size) };
        self.write(at, bytes)
    }

    /// Writes these bytes.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        let remote = [RemoteIoVec {
            base: at as usize,
            len: bytes.len(),
        }];
        match process_vm_writev(self.0, &[IoSlice::new(bytes)], &remote)? {
            all if all == bytes.len() => Ok(()),
            _ => Err(Errno::EFAULT),
        }
    }

    /// Reads a number of four bytes.
    pub fn read_u32(&self, at: u64) -> Result<u32, Errno> {
        let bytes = self.read(at, 4)?;
        Ok(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Reads a struct msghdr.
    pub fn read_message_header(&self, at: u64) -> Result<MessageHeader, Errno> {
        let bytes = self.read(at, MessageHeader::SIZE)?;
        let (words, _) = bytes.as_chunks::<8>();
        let word = |i: usize| u64::from_ne_bytes(words[i]);
        Ok(MessageHeader {
            at,
            name: word(0),
            name_len: word(1) as u32,
            buffers: word(2),
            buffer_count: usize::try_from(word(3)).map_err(|_| Errno::EMSGSIZE)?,
        })
    }

    /// Writes what a received message changes in it.
    pub fn finish_message_header(
        &self,
        header: &MessageHeader,
        name_len: u32,
        flags: i32,
    ) -> Result<(), Errno> {
        self.write(header.at + MessageHeader::NAME_LEN, &name_len.to_ne_bytes())?;
        self.write(header.at + MessageHeader::CONTROL_LEN, &0u64.to_ne_bytes())?;
        self.write(header.at + MessageHeader::FLAGS, &flags.to_ne_bytes())
    }

    /// Reads an array of struct iovec.
    pub fn read_buffers(&self, at: u64, count: usize) -> Result<Vec<Buffer>, Errno> {
        if count > MAX_BUFFERS {
            return Err(Errno::EMSGSIZE);
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.read(at, 16 * count)?;
        let (words, _) = bytes.as_chunks::<8>();
        let buffers = words.chunks_exact(2).map(|pair| Buffer {
            at: u64::from_ne_bytes(pair[0]),
            len: u64::from_ne_bytes(pair[1]) as usize,
        });
        Ok(buffers.collect())
    }

    /// Reads what is in these buffers.
    pub fn gather(&self, buffers: &[Buffer]) -> Result<Vec<u8>, Errno> {
        let mut all = Vec::new();
        for buffer in buffers.iter().filter(|buffer| buffer.len > 0) {
            if buffer.len > MAX_DATAGRAM - all.len() {
                return Err(Errno::EMSGSIZE);
            }
            all.extend(self.read(buffer.at, buffer.len)?);
        }
        Ok(all)
    }

    /// Writes bytes into these buffers, as many as fit, and says how many.
    pub fn scatter(&self, buffers: &[Buffer], bytes: &[u8]) -> Result<usize, Errno> {
        let mut rest = bytes;
        for buffer in buffers {
            let (now, later) = rest.split_at(buffer.len.min(rest.len()));
            self.write(buffer.at, now)?;
            rest = later;
        }
        Ok(bytes.len() - rest.len())
    }
}
