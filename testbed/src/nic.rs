//! A NIC in the test's own process and namespace, as the end-to-end tests want it.

use chanio_emu::nic::Nic;
use chanio_emu::nic::spec::*;
use chanio_model::VportId;
use chanio_model::eswitch::Mode;
use chanio_model::flow::RuleSpec;
use std::path::Path;
use std::sync::Arc;

/// A running NIC.
pub struct Bed {
    /// The NIC.
    pub nic: Arc<Nic>,
}

/// A channel of one queue pair at a vhost-user socket.
pub fn channel(name: &str) -> ChannelSpec {
    ChannelSpec::new(name.parse().expect("a channel's name"))
}

/// A channel that is the netdev `eth0` of a container.
pub fn container(name: &str, netns: &str, address: &str, queues: u16) -> ChannelSpec {
    let addresses = vec![address.parse().expect("an address with its prefix")];
    let attach = Attach::Tap {
        netns: netns.to_owned(),
        ifname: None,
        addresses,
    };
    ChannelSpec {
        queues,
        attach,
        ..channel(name)
    }
}

impl Bed {
    /// A NIC with one worker, no uplink, in switchdev mode.
    pub fn switchdev(dir: &Path, representors: RepresentorMode) -> Self {
        let bed = Self::with_uplink(dir, representors, UplinkSpec::None);
        bed.set_mode(Mode::Switchdev);
        bed
    }

    /// The same with representors, following the kernel or not.
    pub fn following(dir: &Path, offload: bool) -> Self {
        Self::following_on(dir, offload, UplinkSpec::None)
    }

    /// The same with an uplink.
    pub fn following_on(dir: &Path, offload: bool, uplink: UplinkSpec) -> Self {
        let bed = Self::start(dir, RepresentorMode::Tap, uplink, offload);
        bed.set_mode(Mode::Switchdev);
        bed
    }

    /// A NIC with one worker in legacy mode.
    pub fn with_uplink(dir: &Path, representors: RepresentorMode, uplink: UplinkSpec) -> Self {
        Self::start(dir, representors, uplink, false)
    }

    /// Have the eswitch in this mode.
    pub fn set_mode(&self, mode: Mode) {
        let change = EswitchChange {
            mode: Some(mode),
            ..Default::default()
        };
        self.nic.set_eswitch(change).expect("the mode");
    }

    fn start(dir: &Path, representors: RepresentorMode, uplink: UplinkSpec, offload: bool) -> Self {
        let nic = Nic::start(NicConfig {
            queues: 1000,
            run_dir: dir.to_owned(),
            workers: 1,
            representors,
            uplink,
            nic_index: 0,
            ageing_secs: 300,
            profile: &chanio_model::profile::GENERIC,
            offload,
        });
        Self {
            nic: nic.expect("a NIC"),
        }
    }

    /// Make channels.
    pub fn add(&self, specs: Vec<ChannelSpec>) -> Vec<ChannelInfo> {
        self.nic.add_channels(specs).expect("channels")
    }

    /// Add a flow rule, in the words of the command line.
    pub fn rule(&self, text: &str) {
        let spec = RuleSpec::parse(text, &|name| self.nic.vport_by_name(name)).expect(text);
        self.nic.add_rules(vec![spec]).expect(text);
    }

    /// Counters of a vport.
    pub fn stats(&self, vport: VportId) -> VportStats {
        self.nic
            .stats()
            .into_iter()
            .find(|s| s.vport == vport)
            .expect("a vport")
    }
}
