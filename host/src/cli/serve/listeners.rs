//! Where Bay listens, and how it ends.

use std::sync::Arc;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::say;
use crate::app::App;
use crate::config::{Config, ServerConfig, TlsConfig};
use crate::edge::router;
use crate::edge::server::{Limits, Server, Tls};

/// Bound before anything is built, so that a second Bay on the same address says so at once.
pub(super) struct Listeners {
    /// REST.
    pub(super) main: TcpListener,
    ops: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
}

impl Listeners {
    /// Takes the addresses and reads the certificate.
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        raise_descriptors();
        let ServerConfig { listen, ops_listen, .. } = config.server;
        let main = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}; choose another with --listen"))?;
        let ops = match ops_listen {
            None => None,
            Some(address) => Some(
                TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot listen on server.ops_listen = \"{address}\""))?,
            ),
        };
        let tls = match &config.tls {
            TlsConfig { cert: Some(cert), key: Some(key) } => Some(Tls::load(cert, key).context("[tls]")?),
            // One without the other was refused with the configuration.
            TlsConfig { .. } => None,
        };
        Ok(Self { main, ops, tls })
    }

    /// Serves until SIGTERM or SIGINT, and then until calls in flight have ended or the bound is reached.
    pub(super) async fn serve(self, app: &Arc<App>) -> anyhow::Result<()> {
        let Self { main, ops, tls } = self;
        let limits = Limits::of(&app.config.server);
        let asked = CancellationToken::new();
        let watch = tokio::spawn(until_asked(asked.clone(), tls.clone())?);
        let follow = tls.clone().map(|tls| tokio::spawn(tls.follow()));

        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = main.local_addr()?;
        if let Some(ops) = &ops {
            say(&format!("health, readiness and metrics on http://{}", ops.local_addr()?));
        }
        say(&format!("listening on {scheme}://{address}"));
        let rest =
            Server { listener: main, router: router::router(Arc::clone(app)), limits: limits.clone(), tls };
        let rest = rest.serve(asked.cancelled());
        match ops {
            None => rest.await,
            Some(listener) => {
                let ops = Server { listener, router: router::ops(Arc::clone(app)), limits, tls: None };
                tokio::join!(rest, ops.serve(asked.cancelled()));
            }
        }
        for task in [Some(watch), follow].into_iter().flatten() {
            task.abort();
        }
        Ok(())
    }
}

/// Cancels when a signal asks Bay to end. SIGHUP reads the certificate again.
fn until_asked(
    asked: CancellationToken,
    tls: Option<Arc<Tls>>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminated.recv() => return asked.cancel(),
                _ = interrupted.recv() => return asked.cancel(),
                _ = hung_up.recv() => {
                    if let Some(tls) = tls.clone() {
                        // Logged in there, well or badly.
                        let _panicked = tokio::task::spawn_blocking(move || tls.reload()).await;
                    }
                }
            }
        }
    })
}

/// Each connection is a descriptor, and shells start programs with few. What the host allows at most is asked for; a
/// host that allows too little is told by `accept`.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, "cannot raise the number of open files");
        }
    }
}
