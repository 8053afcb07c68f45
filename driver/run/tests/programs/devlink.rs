//! devlink's requests as devlink(8) sends them.

use crate::recorder::{DEVLINK, assert_same, record};
use chanio_netlink::attr::Bitfield32;
use chanio_netlink::devlink::{
    Devlink, EncapMode, EswitchMode, Flavour, Function, FunctionState, Handle, InlineMode,
    PortType, ReloadAction, TrapAction, command,
};

/// NLM_F_REQUEST with NLM_F_ACK, and with NLM_F_DUMP on top.
const REQUEST: u16 = 0x5;
const DUMP: u16 = 0x305;

/// Runs `devlink WORDS`, and compares the first it sends with ours.
fn check(words: &str, flags: u16, number: u16, make: impl FnOnce(&mut Devlink)) {
    let line = format!("devlink {words}");
    let handle = if words.contains("pci/") {
        Handle::new("pci", "0000:03:00.0")
    } else {
        Handle::default()
    };
    let mut ours = Devlink::new(number, handle);
    make(&mut ours);
    let (theirs, output) = record(&line);
    let told = String::from_utf8_lossy(&output.stderr);
    let theirs = theirs.first().unwrap_or_else(|| panic!("{line}: {told}"));
    assert_same(&line, theirs, &ours.message(DEVLINK, flags).unwrap());
    assert_eq!(Devlink::parse(&theirs.payload).unwrap(), ours, "{line}");
}

const DEV: &str = "pci/0000:03:00.0";

#[test]
fn devices() {
    check("dev show", DUMP, command::GET, |_| {});
    check(&format!("dev show {DEV}"), REQUEST, command::GET, |_| {});
    check(
        &format!("dev info {DEV}"),
        REQUEST,
        command::INFO_GET,
        |_| {},
    );
    check(
        &format!("dev reload {DEV}"),
        REQUEST,
        command::RELOAD,
        |_| {},
    );
    check(
        &format!("dev reload {DEV} action driver_reinit"),
        REQUEST,
        command::RELOAD,
        |d| {
            d.reload.action = Some(ReloadAction::DriverReinit);
        },
    );
    let no_reset = format!("dev reload {DEV} action fw_activate limit no_reset");
    check(&no_reset, REQUEST, command::RELOAD, |d| {
        d.reload.action = Some(ReloadAction::FirmwareActivate);
        d.reload.limits = Some(Bitfield32 {
            value: 2,
            selector: 3,
        });
    });
}

#[test]
fn eswitch() {
    let set = |words: &str, make: fn(&mut Devlink)| {
        check(
            &format!("dev eswitch set {DEV} {words}"),
            REQUEST,
            command::ESWITCH_SET,
            make,
        );
    };
    check(
        &format!("dev eswitch show {DEV}"),
        REQUEST,
        command::ESWITCH_GET,
        |_| {},
    );
    set("mode switchdev", |d| {
        d.eswitch.mode = Some(EswitchMode::Switchdev)
    });
    set("mode legacy", |d| {
        d.eswitch.mode = Some(EswitchMode::Legacy)
    });
    set("inline-mode transport", |d| {
        d.eswitch.inline_mode = Some(InlineMode::Transport)
    });
    set("encap-mode basic", |d| {
        d.eswitch.encap_mode = Some(EncapMode::Basic)
    });
}

#[test]
fn ports() {
    check("port show", DUMP, command::PORT_GET, |_| {});
    check(
        &format!("port show {DEV}/1"),
        REQUEST,
        command::PORT_GET,
        |d| d.port.index = Some(1),
    );
    let add = format!("port add {DEV} flavour pcisf pfnum 0 sfnum 88");
    check(&add, REQUEST, command::PORT_NEW, |d| {
        d.port.flavour = Some(Flavour::PciSf);
        (d.port.pf, d.port.sf) = (Some(0), Some(88));
    });
    let add = format!("port add {DEV}/32768 flavour pcisf pfnum 0 sfnum 88 controller 1");
    check(&add, REQUEST, command::PORT_NEW, |d| {
        d.port.index = Some(32768);
        d.port.flavour = Some(Flavour::PciSf);
        (d.port.pf, d.port.sf, d.port.controller) = (Some(0), Some(88), Some(1));
    });
    check(
        &format!("port del {DEV}/32768"),
        REQUEST,
        command::PORT_DEL,
        |d| {
            d.port.index = Some(32768);
        },
    );
    check(
        &format!("port set {DEV}/1 type eth"),
        REQUEST,
        command::PORT_SET,
        |d| {
            d.port.index = Some(1);
            d.port.kind = Some(PortType::Eth);
        },
    );
}

#[test]
fn functions() {
    let set = |words: &str, function: Function| {
        let line = format!("port function set {DEV}/32768 {words}");
        check(&line, REQUEST, command::PORT_SET, |d| {
            d.port.index = Some(32768);
            d.port.function = Some(function);
        });
    };
    let hw_addr = Some(vec![0, 0x11, 0x22, 0x33, 0x44, 0x55]);
    let mac = Function {
        hw_addr,
        ..Function::default()
    };
    let state = |state| Function {
        state: Some(state),
        ..Function::default()
    };
    set("hw_addr 00:11:22:33:44:55", mac.clone());
    set("state active", state(FunctionState::Active));
    set("state inactive", state(FunctionState::Inactive));
    let both = Function {
        state: Some(FunctionState::Active),
        ..mac
    };
    set("hw_addr 00:11:22:33:44:55 state active", both);
}

#[test]
fn rates() {
    let words = |words: &str| format!("port function rate {words}");
    check(&words("show"), DUMP, command::RATE_GET, |_| {});
    let node = |d: &mut Devlink| d.rate.node = Some("g1".into());
    let leaf = |d: &mut Devlink| d.port.index = Some(1);
    check(
        &words(&format!("add {DEV}/g1")),
        REQUEST,
        command::RATE_NEW,
        |d| {
            node(d);
        },
    );
    check(
        &words(&format!("add {DEV}/g1 tx_max 1gbit")),
        REQUEST,
        command::RATE_NEW,
        |d| {
            node(d);
            d.rate.tx_max = Some(125_000_000);
        },
    );
    let set = format!("set {DEV}/1 tx_share 100mbit tx_max 1gbit");
    check(&words(&set), REQUEST, command::RATE_SET, |d| {
        leaf(d);
        (d.rate.tx_share, d.rate.tx_max) = (Some(12_500_000), Some(125_000_000));
    });
    check(
        &words(&format!("set {DEV}/1 parent g1")),
        REQUEST,
        command::RATE_SET,
        |d| {
            leaf(d);
            d.rate.parent = Some("g1".into());
        },
    );
    check(
        &words(&format!("set {DEV}/1 noparent")),
        REQUEST,
        command::RATE_SET,
        |d| {
            leaf(d);
            d.rate.parent = Some(String::new());
        },
    );
    check(
        &words(&format!("del {DEV}/g1")),
        REQUEST,
        command::RATE_DEL,
        |d| {
            node(d);
        },
    );
}

#[test]
fn settings_traps_and_health() {
    check("dev param show", DUMP, command::PARAM_GET, |_| {});
    check(
        &format!("dev param show {DEV} name max_macs"),
        REQUEST,
        command::PARAM_GET,
        |d| {
            d.setting.name = Some("max_macs".into());
        },
    );
    check(
        &format!("resource show {DEV}"),
        1,
        command::DPIPE_TABLE_GET,
        |_| {},
    );
    check("trap show", DUMP, command::TRAP_GET, |_| {});
    let trap = format!("trap set {DEV} trap ttl_value_is_too_small action trap");
    check(&trap, REQUEST, command::TRAP_SET, |d| {
        d.trap.name = Some("ttl_value_is_too_small".into());
        d.trap.action = Some(TrapAction::Trap);
    });
    check("trap group show", DUMP, command::TRAP_GROUP_GET, |_| {});
    check("health show", DUMP, command::HEALTH_REPORTER_GET, |_| {});
    check(
        &format!("health show {DEV} reporter tx"),
        REQUEST,
        command::HEALTH_REPORTER_GET,
        |d| {
            d.reporter_name = Some("tx".into());
        },
    );
}
