//! Channels that share rules: representors in one of tc's shared blocks (tc(8): ingress_block).

use super::super::flower::{clsact_in, filters_at, qdiscs};
use super::{DeviceError, Veth};
use chanio_netlink::message::{NLM_F_CREATE, NLM_F_EXCL};
use chanio_netlink::tc::{At, CLSACT, DEL_QDISC, INGRESS, NEW_QDISC};
use std::collections::HashMap;

impl Veth {
    /// The blocks of netdevs that are in one.
    pub(super) fn blocks(&mut self) -> Result<HashMap<u32, u16>, DeviceError> {
        let mut blocks = HashMap::new();
        for qdisc in qdiscs(self.route.session())? {
            let block = qdisc.more.ingress_block.unwrap_or(0);
            // Rules name blocks up to 65535; others are somebody else's.
            if let (CLSACT, Ok(block @ 1..)) = (qdisc.header.parent, u16::try_from(block)) {
                blocks.insert(qdisc.header.ifindex.cast_unsigned(), block);
            }
        }
        Ok(blocks)
    }

    /// Puts a representor into a block, or takes it out; 0: none. A qdisc is in a block for as long
    /// as it lives, so it is made anew, which must take no rules away.
    pub(super) fn set_block(
        &mut self,
        name: &str,
        index: u32,
        from: u16,
        to: u16,
    ) -> Result<(), DeviceError> {
        let ifindex = index.cast_signed();
        let (at, what) = match from {
            0 => {
                let parent = INGRESS;
                (
                    At::Device { ifindex, parent },
                    "rules of its own".to_owned(),
                )
            }
            block => (At::Block(block.into()), format!("rules of block {block}")),
        };
        let there = qdiscs(self.route.session())?;
        let here = |q: &&chanio_netlink::tc::Qdisc| q.header.parent == CLSACT;
        let others = there.iter().filter(here).filter(|q| {
            from != 0 && q.header.ifindex != ifindex && q.more.ingress_block == Some(from.into())
        });
        let last = others.count() == 0;
        let has = there
            .iter()
            .any(|q| here(&q) && q.header.ifindex == ifindex);
        if has && last && filters_at(self.route.session(), at)? > 0 {
            return Err(DeviceError::Refused {
                reason: format!(
                    "block: with channel `{name}` {what} would go, remove them first (chanio flow \
                     del)"
                ),
            });
        }
        let change = |session: &mut crate::transport::Session, block: u16, kind, flags| {
            let request = clsact_in(ifindex, block).message(kind, flags);
            let request = request.map_err(|e| DeviceError::Refused {
                reason: e.to_string(),
            })?;
            session
                .request(request)
                .map(drop)
                .map_err(|e| e.at("putting a representor into a block"))
        };
        if has {
            change(self.route.session(), 0, DEL_QDISC, 0)?;
        }
        match to {
            0 => Ok(()),
            block => change(
                self.route.session(),
                block,
                NEW_QDISC,
                NLM_F_CREATE | NLM_F_EXCL,
            ),
        }
    }
}
