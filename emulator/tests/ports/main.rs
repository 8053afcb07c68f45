//! Ports against the kernel and real tools, each test in network namespaces of its own.

mod attach;
mod burst;
mod capture;
mod netns;
mod packet;
mod relay;
mod representors;
mod tap;
