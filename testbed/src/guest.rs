//! A QEMU guest with a stock Debian kernel, under emulation.

use crate::process::{Process, run};
use chanio_model::Mac;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// That for clouds, which boots soonest.
    #[default]
    Cloud,
    /// That for hardware, with the module netdevsim, which Debian does not build.
    Netdevsim,
}

impl Kernel {
    /// Kernel and root, made once; the first time it needs the Debian mirror, so call it before
    /// [`crate::netns::isolate`].
    ///
    /// # Errors
    /// What `guest-image.sh` says: no mirror, or a program is missing.
    pub fn image(self) -> Result<PathBuf, String> {
        let (name, kind) = match self {
            Kernel::Cloud => ("guest-image", "cloud"),
            Kernel::Netdevsim => ("guest-image-netdevsim", "netdevsim"),
        };
        let testbed = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = testbed.parent().expect("workspace").join("target");
        let mut script = Command::new(testbed.join("guest-image.sh"));
        let made = script.arg(target.join(name)).arg(kind).output();
        let made = made.map_err(|e| format!("guest-image.sh: {e}"))?;
        match made.status.success() {
            true => Ok(target.join(name)),
            false => Err(String::from_utf8_lossy(&made.stderr).trim().to_owned()),
        }
    }
}

/// A guest to be booted; `..Guest::new(dir, script)` fills in what is not wanted.
pub struct Guest<'a> {
    /// Where its files go.
    pub dir: &'a Path,
    /// Its netdev, `eth0`: the channel's socket, its address, and its queue pairs.
    pub net: Option<(&'a Path, Mac, u16)>,
    /// More properties of that netdev's device, each behind a comma.
    pub device: &'a str,
    /// A listening Unix socket that the guest's `/dev/vport0p1` is connected to, a stream of bytes
    /// in both directions; the script loads `virtio_console` first.
    pub port: Option<&'a Path>,
    /// Where QEMU's monitor is to listen, a Unix socket.
    pub monitor: Option<&'a Path>,
    /// Programs of this machine that it has in `/bin`, with the libraries they need.
    pub programs: &'a [PathBuf],
    /// How many processors.
    pub cpus: u8,
    /// MiB of memory.
    pub memory: u32,
    /// Its kernel.
    pub kernel: Kernel,
    /// What it does, as a shell script; everything it prints can be waited for.
    pub script: &'a str,
}

impl<'a> Guest<'a> {
    /// Two processors, and nothing beside the script.
    pub fn new(dir: &'a Path, script: &'a str) -> Self {
        Self {
            dir,
            net: None,
            device: "",
            port: None,
            monitor: None,
            programs: &[],
            cpus: 2,
            memory: 256,
            kernel: Kernel::default(),
            script,
        }
    }

    /// Boot it.
    pub fn boot(self) -> Process {
        self.boot_under(&[])
    }

    /// Boot it with these words in front of QEMU: a program that runs it, and its arguments.
    pub fn boot_under(self, wrapper: &[String]) -> Process {
        let image = self.kernel.image().unwrap_or_else(|why| panic!("{why}"));
        let initrd = self.initrd(&image);
        let mut words = wrapper.to_vec();
        words.push("qemu-system-x86_64".into());
        let mut qemu = Command::new(&words[0]);
        qemu.args(&words[1..]);
        qemu.args(["-accel", "tcg,thread=multi", "-machine", "pc"]);
        qemu.args(["-cpu", "max", "-smp", &self.cpus.to_string()]);
        let memory = format!("{}M", self.memory);
        qemu.args(["-m", &memory, "-nographic", "-no-reboot", "-nodefaults"]);
        qemu.args(["-serial", "stdio"]);
        let object = format!("memory-backend-memfd,id=mem,size={memory},share=on");
        qemu.args(["-object", &object]);
        qemu.args(["-numa", "node,memdev=mem"]);
        qemu.arg("-kernel")
            .arg(image.join("vmlinux"))
            .arg("-initrd")
            .arg(&initrd);
        qemu.args([
            "-append",
            "console=ttyS0 panic=-1 quiet net.ifnames=0 mitigations=off rcupdate.rcu_expedited=1",
        ]);
        if let Some((socket, mac, queues)) = self.net {
            qemu.arg("-chardev")
                .arg(format!("socket,id=c0,path={}", socket.display()));
            qemu.arg("-netdev")
                .arg(format!("vhost-user,id=n0,chardev=c0,queues={queues}"));
            // MSI-X under emulation crashes QEMU 7.2 with vhost-user.
            qemu.arg("-device").arg(format!(
                "virtio-net-pci,netdev=n0,mq=on,vectors=0,romfile=,mac={mac}{}",
                self.device
            ));
        }
        if let Some(socket) = self.port {
            qemu.args(["-device", "virtio-serial-pci"]);
            qemu.arg("-chardev")
                .arg(format!("socket,id=p0,path={}", socket.display()));
            qemu.args(["-device", "virtserialport,chardev=p0,name=port"]);
        }
        if let Some(socket) = self.monitor {
            qemu.arg("-qmp")
                .arg(format!("unix:{},server=on,wait=off", socket.display()));
        }
        Process::start("guest", self.dir, &mut qemu)
    }

    /// The image's root with the script and the programs: a cpio archive behind another adds to
    /// it.
    fn initrd(&self, image: &Path) -> PathBuf {
        let more = self.dir.join("guest-root");
        std::fs::create_dir_all(more.join("bin")).expect("directory");
        std::fs::write(more.join("script"), self.script).expect("script");
        for program in self.programs {
            add_program(program, &more);
        }
        let initrd = self.dir.join("initrd");
        run(Command::new("sh").current_dir(&more).arg("-c").arg(format!(
            "(cat {}; find . | cpio -o -H newc --quiet) > {}",
            image.join("root.cpio").display(),
            initrd.display()
        )));
        initrd
    }
}

/// Copies a program to `root/bin`, without what debuggers want, and its libraries to their places; or
/// a file that is none as it is.
fn add_program(program: &Path, root: &Path) {
    let name = program.file_name().expect("a program's path");
    let to = root.join("bin").join(name);
    let mut magic = [0; 4];
    let mut file = std::fs::File::open(program).expect("a program");
    if file.read_exact(&mut magic).is_err() || magic != *b"\x7fELF" {
        std::fs::copy(program, &to).expect("room for a file");
        return;
    }
    run(Command::new("strip").arg("-o").arg(&to).arg(program));
    let libraries = run(Command::new("ldd").arg(program));
    let paths = libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for library in paths.map(Path::new) {
        let to = root.join(library.strip_prefix("/").expect("absolute"));
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("directory");
        std::fs::copy(library, &to).unwrap_or_else(|e| panic!("{}: {e}", library.display()));
    }
}

/// How long a guest may take to boot on a busy machine.
pub const BOOT: Duration = Duration::from_secs(120);

/// As [`Kernel::image`], of the cloud's kernel.
///
/// # Panics
/// If it cannot be made.
pub fn image() -> PathBuf {
    let image = Kernel::Cloud.image();
    image.unwrap_or_else(|why| panic!("{why}"))
}
