//! devlink of one device.

use super::route::Told;
use crate::DeviceError;
use crate::transport::{Protocol, Session, Transport, TransportError};
use chanio_netlink::devlink::{
    CONFIG_GROUP, Devlink, EswitchMode, FAMILY, Handle, Port, Rate, command,
};
use std::time::Instant;

/// Sockets of the family, and the device that is meant.
pub(super) struct Devlinks {
    session: Session,
    /// Is told of changes. One request may cause more of them than a socket has room for (the mode,
    /// with many functions), and what does not fit is lost: that must not be the answer.
    watch: Session,
    /// None in a kernel without devlink.
    family: Option<u16>,
    handle: Handle,
}

impl Devlinks {
    /// Of the device of this bus and name, being told of changes from now on.
    pub(super) fn open(
        transport: &dyn Transport,
        bus: &str,
        name: &str,
    ) -> Result<Self, DeviceError> {
        let step = "opening devlink";
        let session = || {
            let session = Session::open(transport, Protocol::Generic);
            session.map_err(|e| TransportError::from(e).at(step))
        };
        let (mut session, mut watch) = (session()?, session()?);
        let family = match session.family(FAMILY) {
            Err(TransportError::NoFamily(_)) => None,
            family => Some(family.map_err(|e| e.at(step))?),
        };
        let group = family
            .as_ref()
            .and_then(|family| family.group(CONFIG_GROUP));
        if let Some(group) = group {
            watch
                .join(group)
                .map_err(|e| TransportError::from(e).at(step))?;
        }
        Ok(Devlinks {
            session,
            watch,
            family: family.map(|family| family.id),
            handle: Handle::new(bus, name),
        })
    }

    /// A request about the device, to be filled in.
    pub(super) fn about(&self, command: u16) -> Devlink {
        Devlink::new(command, self.handle.clone())
    }

    fn family(&self) -> Told<u16> {
        self.family
            .ok_or_else(|| TransportError::NoFamily(FAMILY.to_owned()))
    }

    /// Has it carried out; what came back.
    pub(super) fn ask(&mut self, asked: &Devlink) -> Told<Vec<Devlink>> {
        let asked = asked.message(self.family()?, 0)?;
        let answers = self.session.request(asked)?;
        let parsed = answers.iter().map(|answer| Devlink::parse(&answer.payload));
        Ok(parsed.collect::<Result<_, _>>()?)
    }

    /// All objects of the device that a command lists.
    fn list(&mut self, command: u16) -> Told<Vec<Devlink>> {
        // Without a handle: kernels before 6.5 list all devices whatever is asked.
        let asked = Devlink::new(command, Handle::default());
        let Some(family) = self.family else {
            return Ok(Vec::new());
        };
        let answers = self.session.dump(asked.message(family, 0)?)?;
        let parsed = answers.iter().map(|answer| Devlink::parse(&answer.payload));
        let all: Vec<_> = parsed.collect::<Result<_, _>>()?;
        Ok(all
            .into_iter()
            .filter(|told| told.handle == self.handle)
            .collect())
    }

    /// All ports.
    pub(super) fn ports(&mut self) -> Told<Vec<Port>> {
        let ports = self.list(command::PORT_GET)?;
        Ok(ports.into_iter().map(|told| told.port).collect())
    }

    /// One port.
    pub(super) fn port(&mut self, index: u32) -> Told<Port> {
        let mut asked = self.about(command::PORT_GET);
        asked.port.index = Some(index);
        let mut told = self.ask(&asked)?;
        let told = told
            .pop()
            .ok_or_else(|| TransportError::errno(libc::ENODEV))?;
        Ok(told.port)
    }

    /// Changes what is behind a port.
    pub(super) fn set_function(
        &mut self,
        index: u32,
        fill: impl FnOnce(&mut chanio_netlink::devlink::Function),
    ) -> Told<()> {
        let mut asked = self.about(command::PORT_SET);
        asked.port.index = Some(index);
        fill(asked.port.function.get_or_insert_default());
        self.ask(&asked).map(drop)
    }

    /// All rates: of ports, and of nodes.
    pub(super) fn rates(&mut self) -> Told<Vec<(Option<u32>, Rate)>> {
        let rates = self.list(command::RATE_GET)?;
        Ok(rates
            .into_iter()
            .map(|told| (told.port.index, told.rate))
            .collect())
    }

    /// The eswitch's mode; none where there is no eswitch.
    pub(super) fn mode(&mut self) -> Told<Option<EswitchMode>> {
        let told = self.if_known(command::ESWITCH_GET)?;
        Ok(told.and_then(|told| told.eswitch.mode))
    }

    pub(super) fn set_mode(&mut self, mode: EswitchMode) -> Told<()> {
        let mut asked = self.about(command::ESWITCH_SET);
        asked.eswitch.mode = Some(mode);
        self.ask(&asked).map(drop)
    }

    /// What the device says of itself.
    pub(super) fn info(&mut self) -> Told<Option<Devlink>> {
        self.if_known(command::INFO_GET)
    }

    /// The answer to a question that not every device, driver or kernel knows.
    fn if_known(&mut self, command: u16) -> Told<Option<Devlink>> {
        let asked = self.about(command);
        match self.ask(&asked) {
            Ok(mut told) => Ok(told.pop()),
            Err(TransportError::NoFamily(_)) => Ok(None),
            // ENODEV: a device whose driver does not use devlink.
            Err(error) if error.is(libc::EOPNOTSUPP) || error.is(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What was told so far is not waited for.
    pub(super) fn forget(&mut self) {
        self.session.forget_notifications();
    }

    /// Waits until something about the device has changed, or until then.
    pub(super) fn wait(&mut self, until: Instant) -> Told<()> {
        while let Some(message) = self.watch.notification(until)? {
            let told = Devlink::parse(&message.payload);
            if Some(message.kind) == self.family
                && told.is_ok_and(|told| told.handle == self.handle)
            {
                break;
            }
        }
        Ok(())
    }
}
