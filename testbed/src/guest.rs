//! A QEMU guest with a stock Debian kernel, under emulation, with channels as its netdevs.

use crate::process::{Process, run};
use chanio_model::Mac;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A guest to be booted.
pub struct Guest<'a> {
    /// Where its files go.
    pub dir: &'a Path,
    /// Its netdev, `eth0`: the channel's socket, its address, and its queue pairs.
    pub net: (&'a Path, Mac, u16),
    /// More properties of that netdev's device, each behind a comma.
    pub device: &'a str,
    /// What it does, as a shell script; everything it prints can be waited for.
    pub script: &'a str,
}

impl Guest<'_> {
    /// Boot it.
    pub fn boot(self) -> Process {
        self.boot_under(&[])
    }

    /// Boot it with these words in front of QEMU: a program that runs it, and its arguments.
    pub fn boot_under(self, wrapper: &[String]) -> Process {
        let image = image();
        // A cpio archive behind another adds to it.
        let script_dir = self.dir.join("guest-script");
        std::fs::create_dir_all(&script_dir).expect("directory");
        std::fs::write(script_dir.join("script"), self.script).expect("script");
        let initrd = self.dir.join("initrd");
        run(Command::new("sh")
            .current_dir(&script_dir)
            .arg("-c")
            .arg(format!(
                "(cat {}; echo script | cpio -o -H newc --quiet) > {}",
                image.join("root.cpio").display(),
                initrd.display()
            )));
        let (socket, mac, queues) = self.net;
        let mut words = wrapper.to_vec();
        words.push("qemu-system-x86_64".into());
        let mut qemu = Command::new(&words[0]);
        qemu.args(&words[1..]);
        qemu.args([
            "-accel",
            "tcg,thread=multi",
            "-machine",
            "pc",
            "-cpu",
            "max",
            "-smp",
            "2",
        ]);
        qemu.args([
            "-m",
            "256M",
            "-nographic",
            "-no-reboot",
            "-nodefaults",
            "-serial",
            "stdio",
        ]);
        qemu.args(["-object", "memory-backend-memfd,id=mem,size=256M,share=on"]);
        qemu.args(["-numa", "node,memdev=mem"]);
        qemu.arg("-kernel")
            .arg(image.join("vmlinux"))
            .arg("-initrd")
            .arg(&initrd);
        qemu.args([
            "-append",
            "console=ttyS0 panic=-1 quiet net.ifnames=0 mitigations=off",
        ]);
        qemu.arg("-chardev")
            .arg(format!("socket,id=c0,path={}", socket.display()));
        qemu.arg("-netdev")
            .arg(format!("vhost-user,id=n0,chardev=c0,queues={queues}"));
        // MSI-X under emulation crashes QEMU 7.2 with vhost-user.
        qemu.arg("-device").arg(format!(
            "virtio-net-pci,netdev=n0,mq=on,vectors=0,romfile=,mac={mac}{}",
            self.device
        ));
        Process::start("guest", self.dir, &mut qemu)
    }
}

/// How long a guest may take to boot on a busy machine.
pub const BOOT: Duration = Duration::from_secs(120);

/// Kernel and root, made once; the first time it needs the Debian mirror, so call it before
/// [`crate::netns::isolate`].
pub fn image() -> PathBuf {
    let testbed = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = testbed
        .parent()
        .expect("workspace")
        .join("target/guest-image");
    run(Command::new(testbed.join("guest-image.sh")).arg(&dir));
    dir
}
