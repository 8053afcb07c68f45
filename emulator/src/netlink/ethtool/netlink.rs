//! Requests of the generic family `ethtool`. The family is the real kernel's; what the driver has
//! to answer itself is answered here.

use super::Netdev;
use crate::netlink::played::Played;
use crate::netlink::refuse;
use chanio_netlink::ethtool::{Channels, Ethtool, Header, command};
use chanio_netlink::genl;
use chanio_netlink::kernel::{Client, Refusal, Reply};
use chanio_netlink::message::{Message, NLM_F_DUMP};
use nix::errno::Errno;

impl Played {
    /// Answers a request: the real kernel does what is not the driver's.
    pub fn ethtool_request(
        &mut self,
        client: &Client,
        request: &Message,
    ) -> Result<Reply, Refusal> {
        let number = request.payload.first().copied().unwrap_or(0);
        match number {
            command::FEATURES_GET => return self.tell_features(client, request),
            command::FEATURES_SET => return self.set_features(client, request),
            _ => {}
        }
        match self.channels_request(request) {
            Some(answer) => answer,
            None => self.generic.ask(request, client.strict),
        }
    }

    /// Answers a request about channels; none: it is about something else.
    fn channels_request(&mut self, request: &Message) -> Option<Result<Reply, Refusal>> {
        let (header, _) = genl::Header::parse(&request.payload).ok()?;
        if request.flags & NLM_F_DUMP == NLM_F_DUMP {
            return None;
        }
        match header.command {
            command::CHANNELS_GET | command::CHANNELS_SET => {}
            _ => return None,
        }
        let asked = match Ethtool::<Channels>::parse(&request.payload) {
            Ok(asked) => asked,
            Err(error) => return Some(Err(error.into())),
        };
        let Header { index, name, .. } = &asked.header;
        let netdev = self.ethtool_netdev(name.as_deref(), index.unwrap_or(0));
        let netdev = match netdev {
            Ok(netdev) => netdev,
            Err(Errno::ENODEV) => return None,
            Err(errno) => return Some(Err(Refusal::errno(errno as i32))),
        };
        if netdev.macvlan {
            return Some(Err(refuse::unsupported()));
        }
        Some(match header.command {
            command::CHANNELS_GET => tell_channels(request.kind, &asked, &netdev),
            _ => self.set_channels(&asked, &netdev),
        })
    }

    /// net/ethtool/channels.c: ethnl_set_channels
    fn set_channels(
        &mut self,
        asked: &Ethtool<Channels>,
        netdev: &Netdev,
    ) -> Result<Reply, Refusal> {
        for count in [
            asked.body.rx_count,
            asked.body.tx_count,
            asked.body.other_count,
        ] {
            if count.is_some_and(|count| count > 0) {
                let words = "requested channel count exceeds maximum";
                return Err(refuse::text(libc::EINVAL, words));
            }
        }
        let Some(count) = asked.body.combined_count else {
            return Ok(Reply::Answers(Vec::new()));
        };
        if count > u32::from(netdev.most) {
            let words = "requested channel count exceeds maximum";
            return Err(refuse::text(libc::EINVAL, words));
        }
        if count == 0 {
            let words = "requested channel counts would result in no RX or TX channel being \
                         configured";
            return Err(refuse::text(libc::EINVAL, words));
        }
        self.use_queues(netdev, count as u16)
            .map_err(|errno| Refusal::errno(errno as i32))?;
        Ok(Reply::Answers(Vec::new()))
    }
}

fn tell_channels(kind: u16, asked: &Ethtool<Channels>, netdev: &Netdev) -> Result<Reply, Refusal> {
    let told = Ethtool {
        command: command::CHANNELS_GET_REPLY,
        header: Header {
            flags: None,
            ..asked.header.clone()
        },
        body: Channels {
            combined_max: Some(netdev.most.into()),
            combined_count: Some(netdev.used.into()),
            ..Channels::default()
        },
        unknown: Vec::new(),
    };
    Ok(Reply::Answers(vec![told.message(kind, 0)?]))
}
