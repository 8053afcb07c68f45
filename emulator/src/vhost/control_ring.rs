//! The control virtqueue as it runs, on the session thread.

use super::control_queue::{Command, CommandError, MAX_COMMAND, RssCommand, RxState, parse};
use super::device::Device;
use super::error::SessionError;
use crate::ring::{Burst, Call, Chain, Kick, Notifier, Ring};
use chanio_model::rss::RssSettings;
use virtio_bindings::virtio_net::{VIRTIO_NET_ERR, VIRTIO_NET_OK};

/// Commands carried out before other sessions get their turn.
const TURN: usize = 16;

/// What all control queues share, since one thread runs them.
pub struct Scratch {
    burst: Burst,
    command: Box<[u8; MAX_COMMAND]>,
    notifier: Notifier,
}

impl Scratch {
    /// Buffers, and the means to call drivers.
    ///
    /// # Errors
    /// As [`Notifier::new`].
    pub fn new() -> std::io::Result<Self> {
        Ok(Scratch {
            burst: Burst::default(),
            command: Box::new([0; MAX_COMMAND]),
            notifier: Notifier::new()?,
        })
    }
}

/// A control queue that runs.
pub struct ControlRing {
    /// Its position in the device.
    pub index: u16,
    /// The ring.
    pub ring: Ring,
    /// `None`: the driver polls for answers.
    pub call: Option<Call>,
    /// Held for its registration.
    pub _kick: Kick,
}

/// What control commands act on.
pub struct Target<'a> {
    /// The channel.
    pub device: &'a dyn Device,
    /// Negotiated features.
    pub features: u64,
    /// The receive filter so far.
    pub rx: &'a mut RxState,
    /// The driver was asked to announce itself.
    pub announce: &'a mut bool,
}

impl ControlRing {
    /// Carries out some commands; returns whether more are waiting.
    ///
    /// # Errors
    /// [`SessionError`] if the driver broke the ring.
    pub fn serve(
        &mut self,
        target: &mut Target<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, SessionError> {
        let index = self.index;
        let fault = |source| SessionError::Control { index, source };
        let Scratch {
            burst,
            command,
            notifier,
        } = scratch;
        self.ring.pop_burst(burst, TURN).map_err(fault)?;
        for chain in burst.iter() {
            let answer = chain.writable();
            if answer.is_empty() {
                return Err(SessionError::ControlNoRoom { head: chain.head() });
            }
            let status = match read(&chain, command).and_then(|command| target.execute(&command)) {
                Ok(()) => VIRTIO_NET_OK,
                Err(reason) => {
                    tracing::debug!(reason, "control command refused");
                    VIRTIO_NET_ERR
                }
            };
            let written = answer.copy_in(0, &[status as u8]);
            self.ring.push_used(chain.token(), written as u32);
        }
        // Lets go of the client's memory.
        burst.clear();
        if self.ring.publish()
            && let Some(call) = &self.call
        {
            notifier.notify(call).map_err(SessionError::ControlCall)?;
        }
        self.ring.enable_kicks().map_err(fault)
    }
}

fn read(chain: &Chain<'_>, buffer: &mut [u8; MAX_COMMAND]) -> Result<Command, String> {
    let readable = chain.readable();
    let len = readable.len();
    let room = buffer
        .get_mut(..len as usize)
        .ok_or(CommandError::TooLong { len });
    let room = room.map_err(|error| error.to_string())?;
    let copied = readable.copy_out(0, room);
    parse(&room[..copied]).map_err(|error| error.to_string())
}

impl Target<'_> {
    fn execute(&mut self, command: &Command) -> Result<(), String> {
        command
            .allowed(self.features)
            .map_err(|error| error.to_string())?;
        if let Some(next) = self.rx.after(command) {
            self.device.set_rx_mode(next.mode())?;
            *self.rx = next;
            return Ok(());
        }
        match command {
            Command::MacAddr(mac) => self.device.set_mac(*mac),
            Command::QueuePairs(pairs) => {
                let max = self.device.max_queue_pairs();
                if !(1..=max).contains(pairs) {
                    return Err(format!("{pairs} queue pairs, the channel has {max}"));
                }
                self.device.set_active_pairs(*pairs);
                Ok(())
            }
            Command::Rss(command) => {
                let max = self.device.max_queue_pairs();
                let RssCommand {
                    types,
                    key,
                    table,
                    unclassified,
                    max_tx_vq,
                } = command;
                if !(1..=max).contains(max_tx_vq) {
                    return Err(format!("max_tx_vq {max_tx_vq}, the channel has {max}"));
                }
                let key = key.unwrap_or_default();
                let settings = RssSettings::new(*types, key, table.clone(), *unclassified, max)
                    .map_err(|error| error.to_string())?;
                self.device.set_rss(settings);
                Ok(())
            }
            Command::Hash { types, key } => {
                self.device.set_hash_report(*types, key.unwrap_or_default());
                Ok(())
            }
            Command::AnnounceAck => {
                *self.announce = false;
                Ok(())
            }
            // `after` has taken these.
            Command::Promisc(_)
            | Command::AllMulti(_)
            | Command::MacTable { .. }
            | Command::VlanAdd(_)
            | Command::VlanDel(_) => Err("not negotiated".into()),
        }
    }
}
