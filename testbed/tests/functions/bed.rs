//! An emulator that plays the kernel, with failures on demand, and two containers.

use chanio::device::open_over;
use chanio::nic::{Channel, ChannelSpec};
use chanio::transport::{Effect, Faults, Played, Transport, When};
use chanio::{DeviceAddress, DeviceError, Nic};
use chanio_emu::nic::spec::Attach;
use chanio_testbed::emulator::Emulator;
use chanio_testbed::netns::{Netns, isolate, netdev_state};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const SLOT: &str = "0000:03:00.0";

pub struct Bed {
    pub faults: Faults,
    pub containers: [Netns; 2],
    pub emulator: Emulator,
    _dir: tempfile::TempDir,
}

impl Bed {
    pub fn new(profile: &str) -> Self {
        Self::with(profile, 64)
    }

    pub fn with(profile: &str, queues: usize) -> Self {
        isolate();
        let dir = tempfile::tempdir().unwrap();
        let options =
            format!("--queues {queues} --netlink --function-queues 2 --profile {profile}");
        let emulator = Emulator::start(dir.path(), &options);
        let played = Played::find(emulator.run_dir()).unwrap();
        Bed {
            faults: Faults::around(Arc::new(played)),
            containers: [Netns::new("a"), Netns::new("b")],
            emulator,
            _dir: dir,
        }
    }

    pub fn run_dir(&self) -> &Path {
        self.emulator.run_dir()
    }

    pub fn open(&self) -> Box<dyn Nic> {
        let address: DeviceAddress = format!("pci/{SLOT}").parse().unwrap();
        open_over(&address, Arc::new(self.faults.clone())).unwrap()
    }

    /// All that a channel that failed could leave behind.
    pub fn snapshot(&self) -> String {
        self.faults.clear();
        let mut nic = self.open();
        let vfs = format!("/sys/bus/pci/devices/{SLOT}/sriov_numvfs");
        let vfs = self.faults.read(Path::new(&vfs)).unwrap();
        // By their names, since then more is told.
        let names = nic.channels(&[]).unwrap().into_iter().map(|c| c.name);
        let channels = nic.channels(&names.collect::<Vec<_>>()).unwrap();
        let channels = serde_json::to_string(&channels).unwrap();
        // Refused by a device that has none.
        let representors = nic.representors().unwrap_or_default();
        let representors = serde_json::to_string(&representors).unwrap();
        let containers: Vec<_> = self.containers.iter().collect();
        format!(
            "{vfs:?}\n{channels}\n{representors}\n{}",
            netdev_state(&containers)
        )
    }

    /// Refuses each step of it in turn; how many there were, and what came of it in the end.
    pub fn refuse_each_step(
        &self,
        work: impl Fn(&mut dyn Nic) -> Result<Vec<Channel>, DeviceError>,
    ) -> (usize, Vec<Channel>) {
        let before = self.snapshot();
        for step in 0.. {
            self.faults.clear();
            let mut nic = self.open();
            self.faults.clear();
            self.faults.set_patience(Duration::from_secs(2));
            let refusal = Effect::Refuse {
                errno: 28,
                text: Some("injected".into()),
            };
            self.faults.plan(When::Nth(step), refusal);
            let done = work(&mut *nic);
            let seen = self.faults.seen();
            if seen.len() <= step {
                self.faults.clear();
                return (step, done.unwrap());
            }
            let error = done
                .err()
                .unwrap_or_else(|| panic!("nobody said so: {:?}", seen[step]));
            let text = error.to_string();
            assert!(
                !text.contains("could not be undone"),
                "{:?}: {text}",
                seen[step]
            );
            assert_eq!(self.snapshot(), before, "after {:?}", seen[step]);
        }
        unreachable!()
    }
}

pub fn spec(name: &str, netns: &str, address: &str) -> ChannelSpec {
    ChannelSpec {
        name: name.into(),
        function: None,
        roce: None,
        queues: 2,
        mac: None,
        vlan: 0,
        mtu: 1400,
        spoofchk: false,
        trust: false,
        lro: false,
        link_up: true,
        rss: None,
        block: 0,
        receive: Default::default(),
        attach: Attach::tap(netns, "", vec![address.parse().unwrap()]).unwrap(),
    }
}
