//! rtnetlink's requests. The kernel that has the netdevs carries them out; here is what it cannot
//! know of them: what a NIC's driver tells of its netdevs, virtual functions, rules and addresses
//! that are in the switch.

mod filters;
mod installed;
mod links;
mod macvlans;
mod neighbours;
mod vfs;

pub use installed::Filters;
pub use links::{LinkNews, address_of};
pub use neighbours::Addresses;

use super::played::Played;
use chanio_netlink::kernel::{Client, Refusal, Reply};
use chanio_netlink::message::Message;
use chanio_netlink::tc::{DEL_FILTER, DEL_QDISC, GET_FILTER, NEW_FILTER};

const NEW_LINK: u16 = libc::RTM_NEWLINK;
const GET_LINK: u16 = libc::RTM_GETLINK;
const SET_LINK: u16 = libc::RTM_SETLINK;

impl Played {
    /// Answers one request of NETLINK_ROUTE.
    pub fn route_request(&mut self, client: &Client, request: &Message) -> Result<Reply, Refusal> {
        match request.kind {
            GET_LINK => self.get_link(client, request),
            NEW_LINK | SET_LINK => self.set_link(client, request),
            libc::RTM_DELLINK => self.del_link(client, request),
            NEW_FILTER => self.add_filter(client, request),
            DEL_FILTER => self.del_filter(client, request),
            GET_FILTER => self.get_filter(client, request),
            DEL_QDISC => self.del_qdisc(client, request),
            libc::RTM_NEWNEIGH => self.add_neighbour(client, request),
            libc::RTM_DELNEIGH => self.del_neighbour(client, request),
            libc::RTM_GETNEIGH => self.get_neighbours(client, request),
            _ => self.route.ask(request, client.strict),
        }
    }
}
