//! rtnetlink in one namespace: netdevs, addresses, bridges.

use super::link::{self, Link};
use crate::DeviceError;
use crate::transport::{Files, Netns, Protocol, Session, Transport, TransportError};
use chanio_emu::port::attach::address_message;
use chanio_netlink::message::{Message, NLM_F_CREATE, NLM_F_EXCL};
use ipnet::IpNet;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};

/// A result of a request.
pub(super) type Told<T> = Result<T, TransportError>;

/// A socket of rtnetlink.
pub(super) struct Route {
    session: Session,
}

impl Route {
    /// In the namespace of the devices.
    pub(super) fn open(transport: &dyn Transport) -> Result<Self, DeviceError> {
        let session = Session::open(transport, Protocol::Route);
        let session = session.map_err(|e| TransportError::from(e).at("opening rtnetlink"))?;
        Ok(Route { session })
    }

    /// In a container's.
    pub(super) fn open_in(transport: &dyn Transport, netns: &Netns) -> Result<Self, DeviceError> {
        let entering = format!("entering netns `{}`", netns.name());
        let wire = transport.open_in(netns, Protocol::Route);
        let wire = wire.map_err(|e| TransportError::from(e).at(&entering))?;
        Ok(Route::over(Session::over(wire)))
    }

    /// On this socket.
    pub(super) fn over(session: Session) -> Self {
        Route { session }
    }

    /// The socket, for messages of tc.
    pub(super) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The value of IFLA_NET_NS_FD for the only descriptor of a request.
    pub(super) fn netns_number(&self, netns: &Netns) -> LinkAttribute {
        let number = self.session.file_number(0, netns.as_fd());
        LinkAttribute::NetNsFd(number.cast_signed())
    }

    fn call(&mut self, message: &RouteNetlinkMessage, flags: u16, files: Files<'_>) -> Told<()> {
        let message = link::message(message, flags);
        self.session.request_with(message, files).map(drop)
    }

    /// Changes a netdev (RTM_SETLINK).
    pub(super) fn set(&mut self, change: LinkMessage) -> Told<()> {
        self.call(&RouteNetlinkMessage::SetLink(change), 0, &[])
    }

    /// The same for a change that refers to a namespace.
    pub(super) fn set_with(&mut self, change: LinkMessage, file: BorrowedFd<'_>) -> Told<()> {
        self.call(&RouteNetlinkMessage::SetLink(change), 0, &[file])
    }

    /// Makes a netdev, which may refer to a namespace.
    pub(super) fn make(&mut self, link: LinkMessage, files: Files<'_>) -> Told<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.call(&RouteNetlinkMessage::NewLink(link), flags, files)
    }

    /// Changes what belongs to a kind of netdev (RTM_NEWLINK on one that exists).
    pub(super) fn reconfigure(&mut self, link: LinkMessage) -> Told<()> {
        self.call(&RouteNetlinkMessage::NewLink(link), 0, &[])
    }

    /// Removes a netdev; one that is gone is no error.
    pub(super) fn remove(&mut self, index: u32) -> Told<()> {
        let link = LinkUnspec::new_with_index(index).build();
        match self.call(&RouteNetlinkMessage::DelLink(link), 0, &[]) {
            Err(error) if error.is(libc::ENODEV) => Ok(()),
            done => done,
        }
    }

    /// Any other request with these flags beside NLM_F_REQUEST and NLM_F_ACK.
    pub(super) fn request(&mut self, message: &RouteNetlinkMessage, flags: u16) -> Told<()> {
        self.call(message, flags, &[])
    }

    /// Any listing.
    pub(super) fn dump(&mut self, message: &RouteNetlinkMessage) -> Told<Vec<RouteNetlinkMessage>> {
        let answers = self.session.dump(link::message(message, 0))?;
        answers.iter().map(parsed).collect()
    }

    /// All netdevs, with the functions of those that have some.
    pub(super) fn links(&mut self) -> Told<Vec<Link>> {
        let with = LinkAttribute::ExtMask(vec![LinkExtentMask::Vf]);
        let answers = match self.dump(&RouteNetlinkMessage::GetLink(asked(Some(with)))) {
            // With more than some two hundred functions, IFLA_VFINFO_LIST is longer than its length
            // can say, and nothing behind it can be read (net/core/rtnetlink.c: rtnl_fill_vf).
            Err(TransportError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                self.dump(&RouteNetlinkMessage::GetLink(asked(None)))?
            }
            answers => answers?,
        };
        Ok(answers.into_iter().filter_map(told_link).collect())
    }

    /// One netdev of this namespace, or of another one by its number here.
    pub(super) fn link(&mut self, index: u32, netns: Option<i32>) -> Told<Option<Link>> {
        let mut asked = LinkUnspec::new_with_index(index).build();
        asked.attributes.extend(netns.map(LinkAttribute::IfNetnsId));
        self.one(asked)
    }

    /// The netdev of this name.
    pub(super) fn link_named(&mut self, name: &str) -> Told<Option<Link>> {
        self.one(LinkUnspec::new_with_name(name).build())
    }

    fn one(&mut self, asked: LinkMessage) -> Told<Option<Link>> {
        let asked = link::message(&RouteNetlinkMessage::GetLink(asked), 0);
        let answers = match self.session.request(asked) {
            Err(error) if error.is(libc::ENODEV) => return Ok(None),
            answers => answers?,
        };
        let answer = answers.first().map(parsed).transpose()?;
        Ok(answer.and_then(told_link))
    }

    /// Gives a netdev addresses.
    pub(super) fn add_address(&mut self, index: u32, address: IpNet) -> Told<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.call(&address_message(index, address), flags, &[])
    }

    /// The number that a namespace has in this one, if it has any (RTM_GETNSID).
    pub(super) fn netns_id(&mut self, netns: &Netns) -> Told<Option<i32>> {
        let number = self.session.file_number(0, netns.as_fd());
        let mut asked = NsidMessage::default();
        asked.attributes.push(NsidAttribute::Fd(number));
        let asked = link::message(&RouteNetlinkMessage::GetNsId(asked), 0);
        let answers = self.session.request_with(asked, &[netns.as_fd()])?;
        let answer = answers.first().map(parsed).transpose()?;
        let Some(RouteNetlinkMessage::NewNsId(told)) = answer else {
            return Ok(None);
        };
        let id = told
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NsidAttribute::Id(id) => Some(*id),
                _ => None,
            });
        Ok(id.filter(|id| *id >= 0))
    }
}

/// A question about all netdevs.
fn asked(attribute: Option<LinkAttribute>) -> LinkMessage {
    let mut asked = LinkMessage::default();
    asked.attributes.extend(attribute);
    asked
}

fn parsed(message: &Message) -> Told<RouteNetlinkMessage> {
    let malformed =
        |why: String| TransportError::from(std::io::Error::new(ErrorKind::InvalidData, why));
    link::parse(message).map_err(malformed)
}

fn told_link(message: RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(Link::new(link)),
        _ => None,
    }
}
