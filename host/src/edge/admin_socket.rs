//! `data_dir/run/admin.sock`: how `bay key` reaches a Bay that runs, without a key. Whoever may open it may also read
//! and write the database beside it, so it gives nobody anything new.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, Permissions, PermissionsExt as _};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The folder, beside those of containers.
const RUN: &str = "run";
/// The socket in it.
const SOCKET: &str = "admin.sock";
/// Most connections at once; further ones wait.
const MAX_CONNECTIONS: usize = 8;
/// How long a connection may last in all: it is for one command.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long connecting may take, and the pause after `accept` failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound socket; gone from the file system when dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    run: Dir,
}

impl AdminSocket {
    /// Binds it, readable by Bay's own user alone. The caller holds the data directory's lock, so a socket that lies
    /// there is left over.
    pub fn bind(data_dir: &Path) -> io::Result<Self> {
        let data = Dir::open_ambient_dir(data_dir, ambient_authority())?;
        let mut private = DirBuilder::new();
        private.mode(0o700);
        match data.create_dir_with(RUN, &private) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let run = data.open_dir(RUN)?;
        match run.remove_file(SOCKET) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path(&run))?;
        let socket = Self { listener, run };
        // Nobody else can enter the folder, so nobody came in between.
        socket.run.set_permissions(SOCKET, Permissions::from_mode(0o600))?;
        Ok(socket)
    }

    /// Serves until `ends`; a command under way is answered first, within the connection's own bound.
    pub async fn serve(self, router: Router, ends: CancellationToken) {
        // Before `router`, and with it the data directory's lock, is let go: else the next Bay's socket might be removed.
        let socket = self;
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = socket.listener.accept() => accepted,
                () = ends.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) if is_operator(&stream) => {
                    let router = router.clone();
                    tokio::spawn(async move {
                        // A client that broke off is its own business.
                        let _ended = tokio::time::timeout(CONNECTION_TIMEOUT, answer(stream, router)).await;
                        drop(slot);
                    });
                }
                Ok(_) => tracing::warn!("another user tried the admin socket and was not answered"),
                Err(error) => {
                    tracing::warn!(%error, "accept on the admin socket failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // The next Bay removes what is left, too.
        let _best_effort = self.run.remove_file(SOCKET);
    }
}

/// Connects to the Bay that runs on a data directory.
pub async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let run = Dir::open_ambient_dir(data_dir, ambient_authority())?.open_dir(RUN)?;
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(path(&run))).await;
    connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A path that is short whatever the data directory is called: a unix socket's address has 108 bytes. Valid as long as
/// the folder is open.
fn path(run: &Dir) -> PathBuf {
    Path::new("/proc/self/fd").join(run.as_raw_fd().to_string()).join(SOCKET)
}

/// Bay's own user or root. The folder's mode says the same; this holds where somebody changed it.
fn is_operator(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn answer(stream: UnixStream, router: Router) -> hyper::Result<()> {
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let request: Request = request.map(axum::body::Body::new);
        router.clone().oneshot(request)
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECT_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_private_replaces_one_that_was_left_and_goes_with_its_bay() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than a socket's address may be.
        let data = dir.path().join("d".repeat(120));
        std::fs::create_dir_all(data.join(RUN)).unwrap();
        std::fs::set_permissions(data.join(RUN), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(data.join(RUN).join(SOCKET), "left").unwrap();
        assert!(connect(&data).await.is_err());
        let socket = AdminSocket::bind(&data).unwrap();
        assert_eq!(mode(&data.join(RUN).join(SOCKET)), 0o600);
        let ends = CancellationToken::new();
        let served = tokio::spawn(socket.serve(Router::new(), ends.clone()));
        assert!(is_operator(&connect(&data).await.unwrap()));
        ends.cancel();
        served.await.unwrap();
        assert!(!data.join(RUN).join(SOCKET).exists());
        assert!(connect(&data).await.is_err());
    }

    #[tokio::test]
    async fn the_folder_is_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = AdminSocket::bind(dir.path()).unwrap();
        assert_eq!(mode(&dir.path().join(RUN)), 0o700);
    }
}
