//! The control API as a client sees it: generated stubs over a unix socket, and a real NIC without
//! netdevs.

mod fixture;

use chanio_emu::control::proto::{self, EswitchMode, attach::Kind};
use fixture::{Api, all, spec};
use std::os::unix::net::UnixStream;
use tonic::Code;

#[tokio::test]
async fn channels_are_added_listed_changed_and_deleted() {
    let mut api = Api::start(64).await;
    let mut wanted = spec("web1", 2);
    wanted.mac = "02:00:00:00:00:07".into();
    wanted.vlan = 7;
    let added = api.add(vec![wanted, spec("web2", 1)]).await.unwrap();
    assert_eq!(added.len(), 2);
    let web1 = added[0].spec.clone().unwrap();
    assert_eq!(
        (web1.name.as_str(), web1.queues, web1.vlan, web1.mtu),
        ("web1", 2, 7, 1500)
    );
    assert_eq!(added[0].mac, "02:00:00:00:00:07");
    assert!(matches!(
        web1.attach.unwrap().kind,
        Some(Kind::VhostUser(_))
    ));
    assert_eq!(added[0].state(), proto::ChannelState::Disconnected);
    UnixStream::connect(&added[0].socket).unwrap();

    let nic = api
        .client
        .get_nic(proto::GetNicRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((nic.queues, nic.queues_free, nic.channels), (64, 61, 2));
    assert_eq!(nic.no_representors, "switched off");

    let change = proto::SetChannelRequest {
        name: "web2".into(),
        vlan: Some(9),
        mtu: Some(9000),
        link_up: Some(false),
        ..Default::default()
    };
    api.client.set_channel(change).await.unwrap();
    let listed = api.list(&["web2"]).await.unwrap();
    let web2 = listed[0].spec.clone().unwrap();
    assert_eq!((web2.vlan, web2.mtu, web2.link_down), (9, 9000, true));

    api.delete(&["web1"]).await.unwrap();
    let left = api.list(&[]).await.unwrap();
    assert_eq!(left.len(), 1);
    assert!(UnixStream::connect(&added[0].socket).is_err());
}

#[tokio::test]
async fn refusals_have_a_code_and_change_nothing() {
    let mut api = Api::start(4).await;
    api.add(vec![spec("web1", 1)]).await.unwrap();
    let with = |change: fn(&mut proto::ChannelSpec)| {
        let mut spec = spec("new", 1);
        change(&mut spec);
        spec
    };
    let client = |path: &str| proto::Attach {
        kind: Some(Kind::VhostUserClient(proto::attach::VhostUserClient {
            path: path.into(),
        })),
    };
    let mut relative = spec("new", 1);
    relative.attach = Some(client("vm.sock"));
    let cases = [
        (spec("web1", 1), Code::AlreadyExists, "`web1` exists"),
        (spec("new", 4), Code::ResourceExhausted, "3 of 4 are free"),
        (spec("new", 128), Code::ResourceExhausted, "queues: "),
        (spec("new", 257), Code::InvalidArgument, "1 to 256"),
        (spec("../x", 1), Code::InvalidArgument, "name: "),
        (spec("uplink", 1), Code::InvalidArgument, "not `uplink`"),
        (with(|s| s.vlan = 4095), Code::InvalidArgument, "0 to 4094"),
        (with(|s| s.mtu = 67), Code::InvalidArgument, "68 to 9500"),
        (
            with(|s| s.mtu = u32::MAX),
            Code::InvalidArgument,
            "68 to 9500",
        ),
        (
            with(|s| s.mac = "x".into()),
            Code::InvalidArgument,
            "six hex bytes",
        ),
        (
            with(|s| s.mac = "01:00:00:00:00:00".into()),
            Code::InvalidArgument,
            "unicast",
        ),
        (relative, Code::InvalidArgument, "absolute path"),
    ];
    for (refused, code, text) in cases {
        // Behind a good one, which must not stay either.
        let status = api
            .add(vec![spec("good", 1), refused.clone()])
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{refused:?}: {status}");
        assert!(status.message().contains(text), "{}", status.message());
    }
    let codes = [
        (
            api.list(&["web1", "nobody"]).await.unwrap_err(),
            Code::NotFound,
        ),
        (
            api.delete(&["web1", "nobody"]).await.unwrap_err(),
            Code::NotFound,
        ),
        (
            api.rules(&["in_port web1 action drop"]).await.unwrap_err(),
            Code::FailedPrecondition,
        ),
        (
            api.fdb(0, "02:00:00:00:00:01", "nobody").await.unwrap_err(),
            Code::NotFound,
        ),
        (
            api.fdb(4095, "02:00:00:00:00:01", "web1")
                .await
                .unwrap_err(),
            Code::InvalidArgument,
        ),
        (api.eswitch(7).await.unwrap_err(), Code::InvalidArgument),
    ];
    for (status, code) in codes {
        assert_eq!(status.code(), code, "{status}");
    }
    let left = api.list(&[]).await.unwrap();
    assert_eq!(left.len(), 1);
    let nic = api
        .client
        .get_nic(proto::GetNicRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(nic.queues_free, 3);
}

#[tokio::test]
async fn flow_rules_come_and_go_as_text_with_names() {
    let mut api = Api::start(8).await;
    api.add(vec![spec("web1", 1), spec("web2", 1)])
        .await
        .unwrap();
    api.eswitch(EswitchMode::Switchdev.into()).await.unwrap();
    let text = "prio 10 in_port web1 cookie 0x5 action mirror uplink action redirect web2";
    let ids = api.rules(&[text, "prio 20 action drop"]).await.unwrap();
    assert_eq!(ids.len(), 2);
    let flows = api.client.list_flows(proto::ListFlowsRequest {}).await;
    let flows = all(flows.unwrap().into_inner()).await.unwrap();
    let texts: Vec<_> = flows.iter().map(|f| f.rule.as_str()).collect();
    assert_eq!(texts, [text, "prio 20 action drop"]);
    assert_eq!(
        (flows[0].id, flows[0].priority, flows[0].cookie),
        (ids[0], 10, 5)
    );
    assert_eq!((flows[0].packets, flows[0].idle_ns), (0, None));

    let bad = api
        .rules(&["prio 1 action drop", "prio 0 action drop"])
        .await
        .unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert!(bad.message().starts_with("rules[1]."), "{}", bad.message());
    let unknown = api
        .rules(&["in_port nobody action drop"])
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(api.flow_count().await, 2);

    let missing = api.delete_flows(&[ids[0], 99], false).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let both = api.delete_flows(&[ids[0]], true).await.unwrap_err();
    assert_eq!(both.code(), Code::InvalidArgument);
    assert_eq!(api.delete_flows(&[ids[0], ids[0]], false).await.unwrap(), 1);
    // The channel's rules go with it.
    api.rules(&["in_port web1 action pass"]).await.unwrap();
    api.delete(&["web1"]).await.unwrap();
    assert_eq!(api.flow_count().await, 1);
    assert_eq!(api.delete_flows(&[], true).await.unwrap(), 1);
}

#[tokio::test]
async fn addresses_and_statistics_name_their_ports() {
    let mut api = Api::start(8).await;
    api.add(vec![spec("web1", 1)]).await.unwrap();
    api.fdb(5, "02:00:00:00:00:aa", "web1").await.unwrap();
    api.fdb(0, "02:00:00:00:00:bb", "uplink").await.unwrap();
    let list = api.client.list_fdb(proto::ListFdbRequest {}).await;
    let list = all(list.unwrap().into_inner()).await.unwrap();
    let find = |mac: &str| list.iter().find(|e| e.mac == mac).unwrap();
    let entry = find("02:00:00:00:00:aa");
    assert_eq!(
        (entry.vid, entry.port.as_str(), entry.r#static),
        (5, "web1", true)
    );
    assert_eq!(find("02:00:00:00:00:bb").port, "uplink");
    let gone = proto::DeleteFdbRequest {
        vid: 5,
        mac: "02:00:00:00:00:aa".into(),
    };
    api.client.delete_fdb(gone.clone()).await.unwrap();
    let again = api.client.delete_fdb(gone).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);

    let stats = api.stats(&[]).await.unwrap();
    let names: Vec<_> = stats.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["uplink", "web1"]);
    assert_eq!(stats[1].tx, Some(proto::Count::default()));
    assert_eq!(api.stats(&["web1"]).await.unwrap()[0].vport, stats[1].vport);
    assert_eq!(api.stats(&[""]).await.unwrap_err().code(), Code::NotFound);

    let eswitch = api.client.get_eswitch(proto::GetEswitchRequest {}).await;
    let eswitch = eswitch.unwrap().into_inner();
    assert_eq!(
        (eswitch.mode(), eswitch.fdb_entries),
        (EswitchMode::Legacy, 2)
    );
}

#[tokio::test]
async fn ten_thousand_channels_in_one_request() {
    let mut api = Api::start(10_000).await;
    let wanted = (1..=10_000).map(|i| spec(&format!("ch{i}"), 1)).collect();
    let added = api.add(wanted).await.unwrap();
    assert_eq!(added.len(), 10_000);
    assert_eq!(added[9_999].spec.as_ref().unwrap().name, "ch10000");
    UnixStream::connect(&added[9_999].socket).unwrap();
    assert_eq!(api.list(&[]).await.unwrap().len(), 10_000);
    let full = api.add(vec![spec("more", 1)]).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    let names: Vec<_> = added
        .iter()
        .map(|c| c.spec.as_ref().unwrap().name.as_str())
        .collect();
    api.delete(&names).await.unwrap();
    assert!(api.list(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn reflection_lists_the_service_and_it_is_healthy() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    };
    let api = Api::start(1).await;
    let asked = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let reply = ServerReflectionClient::new(api.channel.clone())
        .server_reflection_info(tokio_stream::iter([asked]))
        .await;
    let reply = reply
        .unwrap()
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
        panic!("{reply:?}");
    };
    assert!(
        list.service.iter().any(|s| s.name == "chanio.v1.Control"),
        "{list:?}"
    );

    let service = "chanio.v1.Control".to_owned();
    let health = HealthClient::new(api.channel.clone())
        .check(HealthCheckRequest { service })
        .await;
    assert_eq!(
        health.unwrap().into_inner().status().as_str_name(),
        "SERVING"
    );
}

#[tokio::test]
async fn stopping_removes_the_socket_though_clients_are_connected() {
    let mut api = Api::start(1).await;
    let path = api.socket_path();
    assert!(path.exists());
    api.stop().await;
    assert!(!path.exists());
    let late = api.client.get_nic(proto::GetNicRequest {}).await;
    assert_eq!(late.unwrap_err().code(), Code::Unavailable);
}
