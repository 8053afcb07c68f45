//! The control API on its socket, on a thread of its own.

use super::proto;
use super::service::{Service, Shared};
use super::socket::RunDir;
use crate::nic::{NicApi, Refused};
use parking_lot::Mutex;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// Bytes of the largest message: 10,000 channels or rules take some 4 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Requests that wait for the NIC at the same time; more wait for their turn.
const BLOCKING_THREADS: usize = 4;

/// How long clients may take to read the last replies after [`ControlServer::stop`].
const GRACE: Duration = Duration::from_secs(2);

/// A running server. Dropping it stops it.
pub struct ControlServer {
    run_dir: RunDir,
    shared: Arc<Shared>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl ControlServer {
    /// Serves a NIC at the control socket of `run_dir`; when this returns, the socket accepts.
    ///
    /// # Errors
    /// [`Refused::Os`] if something is at the socket's path, or what the system says.
    pub fn start(nic: Arc<dyn NicApi>, run_dir: &RunDir) -> Result<Self, Refused> {
        let path = run_dir.socket_path();
        let failed = |e: io::Error| Refused::os(format!("control: {}", path.display()), e);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("control")
            .build()
            .map_err(failed)?;
        let listener = run_dir.listen().map_err(failed)?;
        let shared = Arc::new(Shared {
            nic,
            changes: Mutex::new(()),
        });
        let service = Service(shared.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            let stopped = async { drop(stopped.await) };
            if let Err(error) = runtime.block_on(serve(service, listener, stopped)) {
                tracing::error!(%error, "the control API has ended");
            }
            // Dropping the runtime waits for the requests that the NIC is working on.
        };
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(run);
        let thread = thread
            .inspect_err(|_| drop(fs::remove_file(&path)))
            .map_err(failed)?;
        Ok(Self {
            run_dir: run_dir.clone(),
            shared,
            running: Some((stop, thread)),
        })
    }

    /// Where the socket is.
    pub fn run_dir(&self) -> &Path {
        self.run_dir.path()
    }

    /// Runs `f` while no request changes the NIC.
    pub fn alone<T>(&self, f: impl FnOnce(&dyn NicApi) -> T) -> T {
        let _alone = self.shared.changes.lock();
        f(&*self.shared.nic)
    }

    /// Ends the server when the requests under way are done, and removes the socket. Nobody else
    /// can claim the run directory before the last clone of its [`RunDir`] is gone.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some((stop, thread)) = self.running.take() else {
            return;
        };
        // First the name, so that nobody connects who would not be served.
        if let Err(error) = fs::remove_file(self.run_dir.socket_path()) {
            tracing::warn!(%error, "removing the control socket");
        }
        let _ = stop.send(());
        if thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Serves until `stopped`, and then until the open calls are done, for [`GRACE`] at most.
async fn serve(
    service: Service,
    listener: UnixListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?);
    let control = proto::control_server::ControlServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .build_v1()?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_serving::<proto::control_server::ControlServer<Service>>()
        .await;

    let (ending, ended) = oneshot::channel::<()>();
    let shutdown = async move {
        stopped.await;
        let _ = ending.send(());
    };
    let late = async {
        let _ = ended.await;
        tokio::time::sleep(GRACE).await;
    };
    let server = Server::builder()
        .add_service(control)
        .add_service(reflection)
        .add_service(health)
        .serve_with_incoming_shutdown(incoming, shutdown);
    tokio::select! {
        result = server => result?,
        () = late => tracing::warn!("ended with calls still open"),
    }
    Ok(())
}
