//! Requests about channels.

use super::eswitch::{not_unicast, rule_names};
use super::{Entry, Nic, Refused, State, check_range, spec::*, watch};
use crate::datapath::Change;
use crate::port::tap::MAX_QUEUES as MAX_TAP_QUEUES;
use crate::port::{
    Attached, Channel, Counters, DeviceSettings, Endpoint, IfName, Limiter, LinkChange, Port,
    Representor, RepresentorSpec, TapSpec, attach,
};
use crate::vhost::{Device, MAX_QUEUE_PAIRS, SessionSpec};
use chanio_model::eswitch::{
    self as model, MAX_VPORTS, Receive, ReceiveChange, ReceiveError, VportConfig,
};
use chanio_model::rate::RateError;
use chanio_model::{ChannelName, Mac, VportId};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// The MTU range of a channel, bytes: IPv4's least, and what fits the largest receive buffers.
const MTU: std::ops::RangeInclusive<u16> = 68..=9500;

impl Nic {
    /// Make channels: all of them, or none.
    pub fn add_channels(&self, specs: Vec<ChannelSpec>) -> Result<Vec<ChannelInfo>, Refused> {
        self.make_channels(specs, true)
    }

    /// As [`Nic::add_channels`], but TAPs are left down: whoever gets them brings them up.
    pub fn add_functions(&self, specs: Vec<ChannelSpec>) -> Result<Vec<ChannelInfo>, Refused> {
        self.make_channels(specs, false)
    }

    fn make_channels(
        &self,
        specs: Vec<ChannelSpec>,
        up: bool,
    ) -> Result<Vec<ChannelInfo>, Refused> {
        let mut state = self.open()?;
        let profile = self.config.profile;
        profile.admit_channels(state.channels.len() + specs.len())?;
        let planned = self.plan(&state, specs)?;
        let ports = self.make_ports(&planned, up)?;

        let mut changes = Vec::with_capacity(2 * ports.len());
        for ((vport, spec), port) in planned.iter().zip(&ports) {
            changes.push(Change::AddPort(port.clone()));
            changes.push(Change::Switch(model::Change::AddVport(
                *vport,
                vport_config(spec),
            )));
        }
        self.datapath.apply(&changes);
        let sessions = match self.start_ports(&planned, &ports) {
            Ok(sessions) => sessions,
            Err(refused) => {
                let vports: Vec<_> = planned.iter().map(|(vport, _)| *vport).collect();
                self.unpublish(&vports, &[]);
                return Err(refused);
            }
        };

        let mut infos = Vec::with_capacity(ports.len());
        for (((vport, spec), port), session) in planned.into_iter().zip(ports).zip(sessions) {
            state.free_vports.remove(&vport);
            state.next_vport = state.next_vport.max(vport.0 + 1);
            state.queues_used += u64::from(spec.queues);
            state.names.insert(vport, spec.name.clone());
            if let Some(representor) = &port.representor {
                state.by_netdev.insert(representor.ifindex, vport);
            }
            let name = spec.name.clone();
            let entry = Entry {
                spec,
                port,
                session,
            };
            infos.push(self.channel_info(&entry));
            state.channels.insert(name, entry);
        }
        state.kernel.outdated();
        Ok(infos)
    }

    /// Remove channels: all of them, or none. Flow rules that name one go with it.
    pub fn del_channels(&self, names: &[ChannelName]) -> Result<(), Refused> {
        drop(self.open()?);
        self.remove_channels(names)
    }

    pub(super) fn remove_channels(&self, names: &[ChannelName]) -> Result<(), Refused> {
        let mut state = self.state.lock();
        let names: BTreeSet<_> = names.iter().collect();
        if let Some(name) = names.iter().find(|n| !state.channels.contains_key(**n)) {
            return Err(Refused::NoChannel(name.to_string()));
        }
        let entries: Vec<_> = names
            .iter()
            .filter_map(|n| state.channels.remove(*n))
            .collect();
        let vports: BTreeSet<_> = entries.iter().map(|e| e.port.id).collect();
        for entry in &entries {
            state.queues_used -= u64::from(entry.spec.queues);
            state.names.remove(&entry.port.id);
            if let Some(representor) = &entry.port.representor {
                state.by_netdev.remove(&representor.ifindex);
            }
            state.rates.remove_leaf(&entry.spec.name);
            self.datapath.scheduler().remove(&entry.spec.name);
            state.free_vports.insert(entry.port.id);
        }
        let named = |spec| vports.iter().any(|v| rule_names(spec, *v));
        let stale: Vec<_> = state
            .rules
            .iter()
            .filter(|(_, r)| named(r.spec()))
            .map(|(id, _)| *id)
            .collect();
        for id in &stale {
            state.drop_rule(*id);
        }
        // The last sessions end before the ports go, so that nothing restarts a ring.
        let (sessions, ports): (Vec<_>, Vec<_>) =
            entries.into_iter().map(|e| (e.session, e.port)).unzip();
        self.vhost.remove(sessions.into_iter().flatten().collect());
        let vports: Vec<_> = vports.into_iter().collect();
        let stale = [stale, state.kernel.forget(&vports)].concat();
        state.kernel.outdated();
        self.unpublish(&vports, &stale);
        self.delete_representors(&ports);
        Ok(())
    }

    /// Change a channel while it runs.
    pub fn set_channel(
        &self,
        name: &ChannelName,
        change: ChannelChange,
    ) -> Result<ChannelInfo, Refused> {
        self.change_channel(name, change, true)
    }

    /// The same, with its netdevs or without.
    pub(super) fn change_channel(
        &self,
        name: &ChannelName,
        change: ChannelChange,
        netdevs: bool,
    ) -> Result<ChannelInfo, Refused> {
        let mut state = self.open()?;
        let entry = state
            .channels
            .get(name)
            .ok_or_else(|| Refused::NoChannel(name.to_string()))?;
        let mut old = entry.spec.clone();
        if let Endpoint::Rings(channel) = &entry.port.endpoint {
            // A trusted driver may have chosen another address; it keeps it unless told.
            old.mac = Some(channel.mac());
        }
        let mut spec = old.clone();
        let ChannelChange {
            mac,
            vlan,
            mtu,
            spoofchk,
            trust,
            link_up,
            rss,
            lro,
            block,
            receive,
            clear_fault,
        } = change;
        spec.mac = mac.or(spec.mac);
        spec.vlan = vlan.unwrap_or(spec.vlan);
        spec.mtu = mtu.unwrap_or(spec.mtu);
        spec.spoofchk = spoofchk.unwrap_or(spec.spoofchk);
        spec.trust = trust.unwrap_or(spec.trust);
        spec.link_up = link_up.unwrap_or(spec.link_up);
        spec.lro = lro.unwrap_or(spec.lro);
        check_lro(&spec)?;
        check_range("mtu", spec.mtu, MTU)?;
        spec.block = block.unwrap_or(spec.block);
        spec.receive = receive.apply(&old.receive, spec.mac)?;
        if let Some(change) = &rss {
            spec.rss = change.apply(old.rss.as_ref(), spec.queues)?;
        }

        let vport = entry.port.id;
        let vid = |s: &ChannelSpec| s.vlan.map_or(0, |v| v.id());
        spec.mac.map_or(Ok(()), check_mac)?;
        if spec
            .mac
            .is_some_and(|mac| spec.receive.addresses.contains(&mac))
        {
            return Err(ReceiveError::Present(spec.mac.unwrap_or_default()).into());
        }
        for mac in own_addresses(&spec) {
            self.check_mac_free(&state, vid(&spec), mac, Some(vport))?;
        }
        if netdevs && let Err(refused) = self.change_netdevs(&entry.port, &old, &spec) {
            // Back, as far as it got.
            let _ = self.change_netdevs(&entry.port, &spec, &old);
            return Err(refused);
        }
        let (own, before): (Vec<_>, Vec<_>) = (
            own_addresses(&spec).collect(),
            own_addresses(&old).collect(),
        );
        if (&own, spec.vlan) != (&before, old.vlan) {
            let mut fdb = self.datapath.fdb().write();
            // Entries that control has added stay.
            fdb.flush_vport(vport, false);
            for mac in before {
                fdb.remove(vid(&old), mac);
            }
            for mac in &own {
                // Found free above, and the state is still locked.
                let _ = fdb.insert_static(vid(&spec), *mac, vport);
            }
        }
        self.datapath.update_vport(vport, |config| {
            config.macs = own;
            config.block = spec.block;
            if receive != ReceiveChange::default() {
                config.rx_mode = spec.receive.mode();
            }
            config.port_vlan = spec.vlan;
            config.mtu = spec.mtu;
            config.spoofchk = spec.spoofchk;
            config.trust = spec.trust;
            config.link_up = spec.link_up;
        });
        if rss.is_some()
            && let Some(steering) = entry.port.endpoint.steering()
        {
            steering.set_by_control(spec.rss.clone());
        }
        if let Endpoint::Rings(channel) = &entry.port.endpoint {
            channel.configure(device_settings(&spec));
            if let Some(session) = &entry.session {
                self.vhost.config_changed(session);
                let new_network = spec.vlan != old.vlan || (spec.link_up && !old.link_up);
                if new_network {
                    // Nobody there knows yet where the driver's addresses are.
                    self.vhost.announce(session);
                }
                if clear_fault && channel.driver_state().faulted {
                    channel.clear_fault();
                    self.vhost.reset(session);
                }
            }
        }
        let entry = state
            .channels
            .get_mut(name)
            .expect("found above, still locked");
        entry.spec = spec;
        let info = self.channel_info(entry);
        state.kernel.outdated();
        Ok(info)
    }

    /// All channels, by name.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        self.state
            .lock()
            .channels
            .values()
            .map(|e| self.channel_info(e))
            .collect()
    }

    /// One channel.
    pub fn channel(&self, name: &str) -> Result<ChannelInfo, Refused> {
        let state = self.state.lock();
        let entry = name
            .parse()
            .ok()
            .and_then(|n: ChannelName| state.channels.get(&n));
        entry
            .map(|e| self.channel_info(e))
            .ok_or_else(|| Refused::NoChannel(name.to_owned()))
    }

    fn channel_info(&self, entry: &Entry) -> ChannelInfo {
        let spec = entry.spec.clone();
        let steering = entry.port.endpoint.steering();
        let mut info = ChannelInfo {
            mac: spec.mac.unwrap_or_default(),
            vport: entry.port.id,
            representor: entry.port.representor.as_ref().map(|r| r.name.to_string()),
            socket: self.socket_path(&spec),
            state: ChannelState::Running,
            fault: None,
            features: 0,
            active_queues: spec.queues,
            rss: steering.and_then(|s| Some(s.spread()?.settings().clone())),
            spec,
        };
        if let Endpoint::Rings(channel) = &entry.port.endpoint {
            let driver = channel.driver_state();
            info.mac = channel.mac();
            info.fault = driver.fault;
            info.features = driver.features;
            info.active_queues = driver.active_pairs;
            info.state = match (driver.faulted, driver.connected, driver.active_pairs) {
                (true, ..) => ChannelState::Faulted,
                (_, false, _) => ChannelState::Disconnected,
                (_, true, 0) => ChannelState::Connected,
                (_, true, _) => ChannelState::Running,
            };
        }
        info
    }

    fn socket_path(&self, spec: &ChannelSpec) -> Option<PathBuf> {
        match &spec.attach {
            Attach::VhostUser => Some(
                self.config
                    .run_dir
                    .join("channel")
                    .join(format!("{}.sock", spec.name)),
            ),
            Attach::VhostUserClient { path } => Some(path.clone()),
            Attach::Tap { .. } | Attach::Nothing => None,
        }
    }

    /// Check a batch as a whole and give each channel its vport and address.
    fn plan(
        &self,
        state: &State,
        specs: Vec<ChannelSpec>,
    ) -> Result<Vec<(VportId, ChannelSpec)>, Refused> {
        let pool = u64::from(self.config.queues);
        let asked: u64 = specs.iter().map(|s| u64::from(s.queues)).sum();
        let free = pool - state.queues_used;
        if asked > free {
            return Err(Refused::PoolExhausted { asked, free, pool });
        }
        let mut names = BTreeSet::new();
        let mut macs = BTreeSet::new();
        let mut vports = state
            .free_vports
            .iter()
            .copied()
            .chain((state.next_vport..MAX_VPORTS).map(VportId));
        let mut planned = Vec::with_capacity(specs.len());
        for mut spec in specs {
            if spec.attach == Attach::Nothing {
                return Err(attached_nowhere());
            }
            let max_queues = match spec.attach {
                Attach::Tap { .. } => MAX_TAP_QUEUES,
                _ => MAX_QUEUE_PAIRS,
            };
            check_range("queues", spec.queues, 1..=max_queues)?;
            check_range("mtu", spec.mtu, MTU)?;
            check_lro(&spec)?;
            if state.rates.get(&spec.name).is_some_and(|o| !o.is_leaf) {
                return Err(RateError::Taken(spec.name).into());
            }
            if state.channels.contains_key(&spec.name) || !names.insert(spec.name.clone()) {
                return Err(Refused::DuplicateName(spec.name));
            }
            let vport = vports.next().ok_or(Refused::Invalid {
                field: "count",
                value: (state.channels.len() + names.len()).to_string(),
                allowed: format!("at most {} channels", MAX_VPORTS - 1),
            })?;
            let vid = spec.vlan.map_or(0, |v| v.id());
            let mac = spec
                .mac
                .unwrap_or_else(|| default_mac(self.config.nic_index, vport));
            check_mac(mac)?;
            if !macs.insert((vid, mac)) {
                return Err(Refused::Invalid {
                    field: "mac",
                    value: mac.to_string(),
                    allowed: "an address that the batch has once".into(),
                });
            }
            self.check_mac_free(state, vid, mac, None)?;
            spec.mac = Some(mac);
            // By way of a change, which knows what is allowed.
            let added = ReceiveChange::between(&Receive::default(), &spec.receive);
            added.apply(&Receive::default(), spec.mac)?;
            for mac in spec.receive.own() {
                if !macs.insert((vid, mac)) {
                    return Err(ReceiveError::Present(mac).into());
                }
                self.check_mac_free(state, vid, mac, None)?;
            }
            planned.push((vport, spec));
        }
        Ok(planned)
    }

    fn check_mac_free(
        &self,
        state: &State,
        vid: u16,
        mac: Mac,
        except: Option<VportId>,
    ) -> Result<(), Refused> {
        match self.datapath.fdb().read().static_owner(vid, mac) {
            Some(vport) if Some(vport) != except => match state.names.get(&vport) {
                Some(owner) => Err(Refused::DuplicateMac {
                    mac,
                    owner: owner.clone(),
                }),
                None => Err(Refused::Invalid {
                    field: "mac",
                    value: mac.to_string(),
                    allowed: "an address without a static entry; the uplink has this one".into(),
                }),
            },
            _ => Ok(()),
        }
    }

    /// Everything of the operating system that the channels need. What was made goes again when
    /// a later step fails, since nothing else holds it.
    fn make_ports(
        &self,
        planned: &[(VportId, ChannelSpec)],
        up: bool,
    ) -> Result<Vec<Arc<Port>>, Refused> {
        let mut representors: Vec<Option<Arc<Representor>>> = match &self.representors {
            Ok(representors) => {
                let wanted: Vec<_> = planned
                    .iter()
                    .map(|(vport, spec)| RepresentorSpec {
                        vport: *vport,
                        channel: Some(spec.name.clone()),
                        mtu: u32::from(spec.mtu),
                        carrier: false,
                        mac: None,
                    })
                    .collect();
                let made = representors.create(&wanted)?;
                made.into_iter().map(|r| Some(Arc::new(r))).collect()
            }
            Err(_) => planned.iter().map(|_| None).collect(),
        };
        let mut ports = Vec::with_capacity(planned.len());
        for ((vport, spec), representor) in planned.iter().zip(representors.drain(..)) {
            let endpoint = match &spec.attach {
                Attach::Tap {
                    netns,
                    ifname,
                    addresses,
                } => Endpoint::Netdev(attach(&TapSpec {
                    netns,
                    ifname: &parse_ifname(ifname.as_deref().unwrap_or("eth0"))?,
                    queues: spec.queues,
                    mac: spec.mac.unwrap_or_default(),
                    mtu: u32::from(spec.mtu),
                    addresses,
                    carrier: spec.link_up,
                    up,
                })?),
                Attach::Nothing => return Err(attached_nowhere()),
                Attach::VhostUser | Attach::VhostUserClient { .. } => {
                    Endpoint::Rings(Arc::new(Channel::new(
                        *vport,
                        spec.queues,
                        device_settings(spec),
                        self.datapath.clone(),
                        representor.clone(),
                    )))
                }
            };
            if let (Some(rss), Some(steering)) = (&spec.rss, endpoint.steering()) {
                steering.set_by_control(Some(rss.clone()));
            }
            ports.push(Arc::new(Port {
                id: *vport,
                channel: Some(spec.name.clone()),
                endpoint,
                representor,
                counters: Counters::with_queues(self.config.workers, spec.queues),
                limiter: Limiter::default(),
            }));
        }
        Ok(ports)
    }

    /// Addresses, events and sockets of published ports; one session, or none, for each.
    fn start_ports(
        &self,
        planned: &[(VportId, ChannelSpec)],
        ports: &[Arc<Port>],
    ) -> Result<Vec<Option<crate::vhost::SessionHandle>>, Refused> {
        let mut sockets = Vec::new();
        {
            let mut fdb = self.datapath.fdb().write();
            for (vport, spec) in planned {
                let vid = spec.vlan.map_or(0, |v| v.id());
                for mac in own_addresses(spec) {
                    // Planned, so free; and the state is still locked.
                    let _ = fdb.insert_static(vid, mac, *vport);
                }
            }
        }
        for ((_, spec), port) in planned.iter().zip(ports) {
            watch(&self.datapath, port)?;
            match (&port.endpoint, &spec.attach) {
                (Endpoint::Rings(channel), Attach::VhostUserClient { path }) => {
                    sockets.push(SessionSpec::Connect(path.clone(), channel.clone()));
                }
                (Endpoint::Rings(channel), _) => {
                    let path = self
                        .socket_path(spec)
                        .expect("a vhost-user channel has a socket");
                    sockets.push(SessionSpec::Listen(path, channel.clone()));
                }
                (Endpoint::Netdev(netdev), _) => follow_link(port, netdev, spec.link_up)?,
                (Endpoint::Uplink(_), _) => {}
            }
        }
        let mut sessions = self.vhost.add(sockets)?.into_iter();
        let session = |p: &Arc<Port>| match p.endpoint {
            Endpoint::Rings(_) => sessions.next(),
            _ => None,
        };
        Ok(ports.iter().map(session).collect())
    }

    /// All at once: one after the other, by closing each TAP, takes the kernel much longer.
    fn delete_representors(&self, ports: &[Arc<Port>]) {
        let Ok(representors) = &self.representors else {
            return;
        };
        let ifindex = |p: &Arc<Port>| p.representor.as_ref().map(|r| r.ifindex);
        let ifindexes: Vec<_> = ports.iter().filter_map(ifindex).collect();
        if let Err(error) = representors.netdevs().delete(&ifindexes) {
            tracing::warn!(%error, "deleting representors at once; closing each");
        }
    }

    /// What of a change the kernel has to do, which is all that can fail.
    fn change_netdevs(
        &self,
        port: &Port,
        old: &ChannelSpec,
        new: &ChannelSpec,
    ) -> Result<(), Refused> {
        let new_mtu = new.mtu != old.mtu;
        if let Some(representor) = port.representor.as_ref().filter(|_| new_mtu) {
            self.set_representor_mtu(representor, new.mtu)?;
        }
        if let Endpoint::Netdev(netdev) = &port.endpoint {
            let mac = new.mac.filter(|_| new.mac != old.mac);
            let mtu = new_mtu.then_some(u32::from(new.mtu));
            if mac.is_some() || mtu.is_some() {
                netdev.change(mac, mtu)?;
            }
            if new.link_up != old.link_up {
                follow_link(port, netdev, new.link_up)?;
            }
        }
        Ok(())
    }

    fn set_representor_mtu(&self, representor: &Representor, mtu: u16) -> Result<(), Refused> {
        let Ok(representors) = &self.representors else {
            return Ok(());
        };
        let failed = |e| Refused::os("mtu: setting the representor's", e);
        let change = LinkChange {
            mtu: Some(u32::from(mtu)),
            ..LinkChange::new(representor.ifindex)
        };
        let outcome = representors
            .netdevs()
            .apply(&[change])
            .map_err(failed)?
            .pop();
        outcome.map_or(Ok(()), |result| result.map_err(|e| failed(e.into())))
    }

    /// Take vports and rules out of the switch; on return no worker uses them.
    fn unpublish(&self, vports: &[VportId], rules: &[chanio_model::RuleId]) {
        let mut changes = Vec::with_capacity(rules.len() + 2 * vports.len());
        changes.extend(
            rules
                .iter()
                .map(|id| Change::Switch(model::Change::RemoveRule(*id))),
        );
        for vport in vports {
            changes.push(Change::Switch(model::Change::RemoveVport(*vport)));
            changes.push(Change::RemovePort(*vport));
        }
        self.datapath.apply(&changes);
        self.datapath.fdb().write().flush_vports(vports);
    }
}

/// The link of a netdev channel, shown at both ends.
fn follow_link(port: &Port, netdev: &Attached, up: bool) -> Result<(), Refused> {
    let failed = |e| Refused::os("link_up: setting the carrier", e);
    netdev.set_carrier(up).map_err(failed)?;
    match &port.representor {
        Some(representor) => representor.tap.set_carrier(up).map_err(failed),
        None => Ok(()),
    }
}

fn attached_nowhere() -> Refused {
    Refused::Invalid {
        field: "attach",
        value: "`none`".into(),
        allowed: "`vhost-user`, `vhost-user-client:PATH` or `tap:NETNS[:IF]`".into(),
    }
}

fn parse_ifname(name: &str) -> Result<IfName, Refused> {
    name.parse()
        .map_err(|error: crate::port::IfNameError| Refused::Invalid {
            field: "ifname",
            value: name.to_owned(),
            allowed: error.to_string(),
        })
}

/// The addresses that are the channel's alone.
pub(super) fn own_addresses(spec: &ChannelSpec) -> impl Iterator<Item = Mac> {
    spec.mac.into_iter().chain(spec.receive.own())
}

fn check_mac(mac: Mac) -> Result<(), Refused> {
    if mac.is_unicast() {
        Ok(())
    } else {
        Err(not_unicast(mac))
    }
}

/// 02:ca:<nic>:<vport>: locally administered, unique among the NICs of a machine.
fn default_mac(nic_index: u32, vport: VportId) -> Mac {
    let [_, b, c, d] = vport.0.to_be_bytes();
    Mac([0x02, 0xca, nic_index as u8, b, c, d])
}

fn device_settings(spec: &ChannelSpec) -> DeviceSettings {
    DeviceSettings {
        mac: spec.mac.unwrap_or_default(),
        mtu: spec.mtu,
        link_up: spec.link_up,
        trust: spec.trust,
        lro: spec.lro,
        rx_mode: spec.receive.mode(),
    }
}

/// The netdev of a container has the kernel's own GRO.
fn check_lro(spec: &ChannelSpec) -> Result<(), Refused> {
    let netdev = matches!(spec.attach, Attach::Tap { .. });
    if spec.lro && netdev {
        return Err(Refused::Invalid {
            field: "lro",
            value: "on".into(),
            allowed: "off with attach tap: its netdev has the kernel's GRO".into(),
        });
    }
    Ok(())
}

fn vport_config(spec: &ChannelSpec) -> Arc<VportConfig> {
    Arc::new(VportConfig {
        macs: own_addresses(spec).collect(),
        port_vlan: spec.vlan,
        block: spec.block,
        spoofchk: spec.spoofchk,
        trust: spec.trust,
        link_up: spec.link_up,
        mtu: spec.mtu,
        rx_mode: spec.receive.mode(),
    })
}
