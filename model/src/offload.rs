//! The virtio-net header, and checksum and segmentation in software.
