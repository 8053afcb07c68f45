//! The CLI against a running emulator.
