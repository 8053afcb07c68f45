//! Limits and timeouts. The defaults are the kernel's (Documentation/networking/
//! nf_conntrack-sysctl.rst); the field says which sysctl it is.

use super::sctp::SctpState;
use super::tcp::TcpState;
use crate::Nanos;

const SECOND: Nanos = 1_000_000_000;

/// How a [`super::Conntrack`] behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtConfig {
    /// `nf_conntrack_max`: connections at most, of all zones together. The kernel's default
    /// depends on memory: 262,144 from 4 GB on.
    pub max_entries: u32,
    /// TCP's settings.
    pub tcp: TcpConfig,
    /// SCTP's timeouts.
    pub sctp: SctpTimeouts,
    /// `nf_conntrack_udp_timeout`: no answer yet, or not a stream yet.
    pub udp: Nanos,
    /// `nf_conntrack_udp_timeout_stream`: went both ways for more than two seconds.
    pub udp_stream: Nanos,
    /// `nf_conntrack_icmp_timeout`, and ICMPv6's.
    pub icmp: Nanos,
    /// `nf_conntrack_gre_timeout`.
    pub gre: Nanos,
    /// `nf_conntrack_gre_timeout_stream`: answered.
    pub gre_stream: Nanos,
    /// `nf_conntrack_generic_timeout`: other protocols.
    pub generic: Nanos,
    /// `nf_flowtable_tcp_timeout` and `nf_flowtable_udp_timeout`: how long an idle connection
    /// stays in act_ct's flow table.
    pub flow_table: Nanos,
}

impl Default for CtConfig {
    fn default() -> Self {
        Self {
            max_entries: 262_144,
            tcp: TcpConfig::default(),
            sctp: SctpTimeouts::default(),
            udp: 30 * SECOND,
            udp_stream: 120 * SECOND,
            icmp: 30 * SECOND,
            gre: 30 * SECOND,
            gre_stream: 180 * SECOND,
            generic: 600 * SECOND,
            flow_table: 30 * SECOND,
        }
    }
}

/// TCP's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// `nf_conntrack_tcp_be_liberal`: segments outside of the window are not invalid.
    pub liberal: bool,
    /// `nf_conntrack_tcp_loose`: connections that are older than the table are picked up.
    pub loose: bool,
    /// `nf_conntrack_tcp_ignore_invalid_rst`: a RST with an old number is not invalid.
    pub ignore_invalid_rst: bool,
    /// `nf_conntrack_tcp_max_retrans`: so many ACKs alike shorten the timeout.
    pub max_retrans: u8,
    /// The timeouts.
    pub timeouts: TcpTimeouts,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            liberal: false,
            loose: true,
            ignore_invalid_rst: false,
            max_retrans: 3,
            timeouts: TcpTimeouts::default(),
        }
    }
}

/// `nf_conntrack_tcp_timeout_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpTimeouts {
    /// Also when both ends sent a SYN.
    pub syn_sent: Nanos,
    /// A SYN was answered.
    pub syn_recv: Nanos,
    /// Five days.
    pub established: Nanos,
    /// One end has closed.
    pub fin_wait: Nanos,
    /// That was acknowledged.
    pub close_wait: Nanos,
    /// Both ends have closed.
    pub last_ack: Nanos,
    /// Everything was acknowledged.
    pub time_wait: Nanos,
    /// After a RST.
    pub close: Nanos,
    /// `max_retrans`: while the same is sent again and again.
    pub retransmitting: Nanos,
    /// `unacknowledged`: while something is not acknowledged.
    pub unacknowledged: Nanos,
}

impl Default for TcpTimeouts {
    fn default() -> Self {
        Self {
            syn_sent: 120 * SECOND,
            syn_recv: 60 * SECOND,
            established: 5 * 24 * 3600 * SECOND,
            fin_wait: 120 * SECOND,
            close_wait: 60 * SECOND,
            last_ack: 30 * SECOND,
            time_wait: 120 * SECOND,
            close: 10 * SECOND,
            retransmitting: 300 * SECOND,
            unacknowledged: 300 * SECOND,
        }
    }
}

impl TcpTimeouts {
    /// In some state.
    pub(super) fn of(&self, state: TcpState) -> Nanos {
        match state {
            TcpState::None => 0,
            TcpState::SynSent | TcpState::SynSent2 => self.syn_sent,
            TcpState::SynRecv => self.syn_recv,
            TcpState::Established => self.established,
            TcpState::FinWait => self.fin_wait,
            TcpState::CloseWait => self.close_wait,
            TcpState::LastAck => self.last_ack,
            TcpState::TimeWait => self.time_wait,
            TcpState::Close => self.close,
        }
    }
}

/// `nf_conntrack_sctp_timeout_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SctpTimeouts {
    /// Just begun, or over.
    pub closed: Nanos,
    /// INIT answered.
    pub cookie_wait: Nanos,
    /// The cookie is under way.
    pub cookie_echoed: Nanos,
    /// Open.
    pub established: Nanos,
    /// Being shut down, by either end, answered or not.
    pub shutdown: Nanos,
    /// Only a heartbeat seen.
    pub heartbeat_sent: Nanos,
}

impl Default for SctpTimeouts {
    fn default() -> Self {
        Self {
            closed: 10 * SECOND,
            cookie_wait: 3 * SECOND,
            cookie_echoed: 3 * SECOND,
            established: 210 * SECOND,
            shutdown: 3 * SECOND,
            heartbeat_sent: 30 * SECOND,
        }
    }
}

impl SctpTimeouts {
    /// In some state.
    pub(super) fn of(&self, state: SctpState) -> Nanos {
        match state {
            SctpState::None => 0,
            SctpState::Closed => self.closed,
            SctpState::CookieWait => self.cookie_wait,
            SctpState::CookieEchoed => self.cookie_echoed,
            SctpState::Established => self.established,
            SctpState::ShutdownSent | SctpState::ShutdownRecd | SctpState::ShutdownAckSent => {
                self.shutdown
            }
            SctpState::HeartbeatSent => self.heartbeat_sent,
        }
    }
}
