//! The options of a tunnel header, as flower matches them (linux/pkt_cls.h,
//! TCA_FLOWER_KEY_ENC_OPT*) and tunnel_key sets them (linux/tc_act/tc_tunnel_key.h,
//! TCA_TUNNEL_KEY_ENC_OPT*): both headers give them the same numbers.

use crate::Result;
use crate::attr::{Attr, Be, Raw, Table, Value, Writer, attributes, record};

attributes! {
    /// TCA_FLOWER_KEY_ENC_OPTS_*
    pub mod opts = "TCA_FLOWER_KEY_ENC_OPTS_" { UNSPEC, GENEVE, VXLAN, ERSPAN, GTP, PFCP }
}
attributes! {
    /// TCA_FLOWER_KEY_ENC_OPT_GENEVE_*
    pub mod geneve = "TCA_FLOWER_KEY_ENC_OPT_GENEVE_" { UNSPEC, CLASS, TYPE, DATA }
}
attributes! {
    /// TCA_FLOWER_KEY_ENC_OPT_VXLAN_*
    pub mod vxlan = "TCA_FLOWER_KEY_ENC_OPT_VXLAN_" { UNSPEC, GBP }
}
attributes! {
    /// TCA_FLOWER_KEY_ENC_OPT_ERSPAN_*
    pub mod erspan = "TCA_FLOWER_KEY_ENC_OPT_ERSPAN_" { UNSPEC, VER, INDEX, DIR, HWID }
}
attributes! {
    /// TCA_FLOWER_KEY_ENC_OPT_GTP_*
    pub mod gtp = "TCA_FLOWER_KEY_ENC_OPT_GTP_" { UNSPEC, PDU_TYPE, QFI }
}
attributes! {
    /// TCA_FLOWER_KEY_ENC_OPT_PFCP_*
    pub mod pfcp = "TCA_FLOWER_KEY_ENC_OPT_PFCP_" { UNSPEC, TYPE, SEID }
}

record! {
    /// One TLV of a Geneve header (RFC 8926 §3.5).
    pub struct GeneveOption of geneve {
        /// Who defines the type.
        class: u16 as Be<u16> = CLASS;
        /// The type, the critical bit included.
        kind: u8 = TYPE;
        /// 4 to 128 bytes, whole words.
        data: Vec<u8> = DATA;
    }
}
record! {
    /// VXLAN's group-based policy.
    pub struct VxlanOption of vxlan {
        /// The group and flags, as the kernel keeps them.
        gbp: u32 = GBP;
    }
}
record! {
    /// ERSPAN's header, version 1 or 2.
    pub struct ErspanOption of erspan {
        /// The version.
        version: u8 = VER;
        /// The session's port of version 1.
        index: u32 as Be<u32> = INDEX;
        /// The direction of version 2.
        direction: u8 = DIR;
        /// The hardware id of version 2.
        hardware_id: u8 = HWID;
    }
}
record! {
    /// GTP's PDU session container.
    pub struct GtpOption of gtp {
        /// Its type.
        pdu_type: u8 = PDU_TYPE;
        /// The flow's QoS identifier.
        qfi: u8 = QFI;
    }
}
record! {
    /// PFCP's session.
    pub struct PfcpOption of pfcp {
        /// Its type.
        kind: u8 = TYPE;
        /// The session endpoint.
        seid: u64 as Be<u64> = SEID;
    }
}

/// The options of one tunnel header. The kernel takes those of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "arbitrary"), derive(arbitrary::Arbitrary))]
pub struct TunnelOptions {
    /// Geneve's, in order.
    pub geneve: Vec<GeneveOption>,
    /// VXLAN's.
    pub vxlan: Option<VxlanOption>,
    /// ERSPAN's.
    pub erspan: Option<ErspanOption>,
    /// GTP's.
    pub gtp: Option<GtpOption>,
    /// PFCP's.
    pub pfcp: Option<PfcpOption>,
    /// Those of a kind that is not known here.
    #[cfg_attr(any(test, feature = "arbitrary"), arbitrary(default))]
    pub unknown: Vec<Raw>,
}

impl Value for TunnelOptions {
    /// iproute2 marks all but Geneve's; the kernel takes either.
    fn is_nest(&self) -> bool {
        self.geneve.is_empty()
    }

    fn parse(attr: &Attr<'_>) -> Result<Self> {
        let table = attr.nest(&opts::ALL)?;
        Ok(TunnelOptions {
            geneve: table
                .all(opts::GENEVE)
                .map(|attr| GeneveOption::read(&attr.nest(&geneve::ALL)?))
                .collect::<Result<_>>()?,
            vxlan: one(&table, opts::VXLAN, &vxlan::ALL, VxlanOption::read)?,
            erspan: one(&table, opts::ERSPAN, &erspan::ALL, ErspanOption::read)?,
            gtp: one(&table, opts::GTP, &gtp::ALL, GtpOption::read)?,
            pfcp: one(&table, opts::PFCP, &pfcp::ALL, PfcpOption::read)?,
            unknown: table.rest(),
        })
    }

    fn emit(&self, out: &mut Writer) {
        for option in &self.geneve {
            out.attr(opts::GENEVE, |out| option.write(out));
        }
        if let Some(option) = &self.vxlan {
            out.nest(opts::VXLAN, |out| option.write(out));
        }
        if let Some(option) = &self.erspan {
            out.nest(opts::ERSPAN, |out| option.write(out));
        }
        if let Some(option) = &self.gtp {
            out.nest(opts::GTP, |out| option.write(out));
        }
        if let Some(option) = &self.pfcp {
            out.nest(opts::PFCP, |out| option.write(out));
        }
        out.put_raw(&self.unknown);
    }

    fn all_ones(&self) -> Self {
        let geneve = self.geneve.iter().map(|option| GeneveOption {
            class: option.class.map(|_| !0),
            kind: option.kind.map(|_| !0),
            data: option.data.as_ref().map(Value::all_ones),
        });
        TunnelOptions {
            geneve: geneve.collect(),
            vxlan: self.vxlan.as_ref().map(|option| VxlanOption {
                gbp: option.gbp.map(|_| !0),
            }),
            erspan: self.erspan.as_ref().map(|option| ErspanOption {
                version: option.version,
                index: option.index.map(|_| !0),
                direction: option.direction.map(|_| !0),
                hardware_id: option.hardware_id.map(|_| !0),
            }),
            gtp: self.gtp.as_ref().map(|option| GtpOption {
                pdu_type: option.pdu_type.map(|_| !0),
                qfi: option.qfi.map(|_| !0),
            }),
            pfcp: self.pfcp.as_ref().map(|option| PfcpOption {
                kind: option.kind.map(|_| !0),
                seid: option.seid.map(|_| !0),
            }),
            unknown: self.unknown.clone(),
        }
    }
}

fn one<T>(
    table: &Table<'_>,
    kind: u16,
    set: &'static crate::attr::AttrSet,
    read: impl Fn(&Table<'_>) -> Result<T>,
) -> Result<Option<T>> {
    table
        .attr(kind)
        .map(|attr| read(&attr.nest(set)?))
        .transpose()
}
