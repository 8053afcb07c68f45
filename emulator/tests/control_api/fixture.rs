//! A NIC, its server and a client.

use chanio_emu::control::proto::{self, control_client::ControlClient};
use chanio_emu::control::{ControlServer, MAX_MESSAGE, RunDir, SOCKET_NAME};
use chanio_emu::nic::Nic;
use chanio_emu::nic::spec::{NicConfig, RepresentorMode, UplinkSpec};
use std::path::PathBuf;
use std::sync::Arc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub struct Api {
    pub client: ControlClient<Channel>,
    pub channel: Channel,
    server: Option<ControlServer>,
    nic: Arc<Nic>,
    dir: tempfile::TempDir,
}

/// A channel with nothing special.
pub fn spec(name: &str, queues: u32) -> proto::ChannelSpec {
    proto::ChannelSpec {
        name: name.into(),
        queues,
        ..Default::default()
    }
}

/// A stream's items.
pub async fn all<T>(mut stream: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut list = Vec::new();
    while let Some(item) = stream.message().await? {
        list.push(item);
    }
    Ok(list)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

impl Api {
    pub async fn start(queues: u32) -> Self {
        chanio_emu::port::raise_nofile_limit(u64::from(queues) + 1024).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::claim(dir.path()).unwrap();
        let nic = Nic::start(NicConfig {
            queues,
            run_dir: run_dir.path().to_owned(),
            workers: 1,
            representors: RepresentorMode::Off,
            uplink: UplinkSpec::None,
            nic_index: 0,
            ageing_secs: 300,
            profile: &chanio_model::profile::GENERIC,
            offload: false,
        })
        .unwrap();
        let server = ControlServer::start(nic.clone(), &run_dir).unwrap();
        let uri = format!("unix:{}", run_dir.socket_path().display());
        let channel = Endpoint::try_from(uri).unwrap().connect().await.unwrap();
        let client = ControlClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Self {
            client,
            channel,
            server: Some(server),
            nic,
            dir,
        }
    }

    pub fn socket_path(&self) -> PathBuf {
        self.dir.path().join(SOCKET_NAME)
    }

    /// The client's own connection must go on being served meanwhile.
    pub async fn stop(&mut self) {
        let server = self.server.take().unwrap();
        tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
    }

    pub async fn add(
        &mut self,
        channels: Vec<proto::ChannelSpec>,
    ) -> Result<Vec<proto::Channel>, Status> {
        let asked = proto::AddChannelsRequest { channels };
        all(self.client.add_channels(asked).await?.into_inner()).await
    }

    pub async fn list(&mut self, names: &[&str]) -> Result<Vec<proto::Channel>, Status> {
        let names = strings(names);
        let asked = proto::ListChannelsRequest { names };
        all(self.client.list_channels(asked).await?.into_inner()).await
    }

    pub async fn delete(&mut self, names: &[&str]) -> Result<(), Status> {
        let names = strings(names);
        let asked = proto::DeleteChannelsRequest { names };
        self.client.delete_channels(asked).await.map(drop)
    }

    pub async fn rules(&mut self, rules: &[&str]) -> Result<Vec<u64>, Status> {
        let rules = strings(rules);
        let added = self
            .client
            .add_flows(proto::AddFlowsRequest {
                rules,
                replace: false,
            })
            .await?;
        Ok(added.into_inner().ids)
    }

    pub async fn delete_flows(&mut self, ids: &[u64], all: bool) -> Result<u64, Status> {
        let ids = ids.to_vec();
        let deleted = self
            .client
            .delete_flows(proto::DeleteFlowsRequest { ids, all })
            .await?;
        Ok(deleted.into_inner().deleted)
    }

    pub async fn flow_count(&mut self) -> u64 {
        let eswitch = self.client.get_eswitch(proto::GetEswitchRequest {}).await;
        eswitch.unwrap().into_inner().flows
    }

    pub async fn fdb(&mut self, vid: u32, mac: &str, port: &str) -> Result<(), Status> {
        let (mac, port) = (mac.to_owned(), port.to_owned());
        let asked = proto::AddFdbRequest { vid, mac, port };
        self.client.add_fdb(asked).await.map(drop)
    }

    pub async fn eswitch(&mut self, mode: i32) -> Result<proto::Eswitch, Status> {
        let asked = proto::SetEswitchRequest {
            mode,
            ..Default::default()
        };
        Ok(self.client.set_eswitch(asked).await?.into_inner())
    }

    pub async fn stats(&mut self, names: &[&str]) -> Result<Vec<proto::VportStats>, Status> {
        let names = strings(names);
        let queues = false;
        let asked = proto::ListStatsRequest { names, queues };
        all(self.client.list_stats(asked).await?.into_inner()).await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.server.take());
        self.nic.shutdown();
    }
}
