//! DPDK's testpmd with vhost ports: it copies from ring to ring and decides nothing.

use super::{Backend, Program};
use crate::bed::Bed;
use crate::machine::BACKEND_CPU;
use chanio_testbed::testpmd::{Launch, Testpmd};

/// Pairs of ports, each forwarding to the other.
pub fn start(bed: &Bed, ports: usize) -> std::io::Result<Backend> {
    let dir = bed.run_dir()?;
    let sockets: Vec<_> = (0..ports).map(|n| dir.join(format!("p{n}"))).collect();
    let mut eal = vec!["--in-memory".to_owned()];
    for (n, socket) in sockets.iter().enumerate() {
        let path = socket.display();
        eal.push(format!("--vdev=net_vhost{n},iface={path},queues=1"));
    }
    let arguments = [
        "--no-mlockall",
        "--rxd=1024",
        "--txd=1024",
        "--forward-mode=io",
    ];
    let mut testpmd = Testpmd::launch(Launch {
        name: "vhost",
        dir: &dir,
        cpu: BACKEND_CPU,
        memory: 512,
        eal,
        arguments: arguments.map(String::from).to_vec(),
        wrapper: bed.wrapper(&[BACKEND_CPU]),
    });
    testpmd.command("start");
    Ok(Backend {
        programs: vec![Program::Testpmd(testpmd)],
        sockets,
    })
}
