//! The way between a replica and its database, which a test can block.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of what comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// It goes on.
    Open,
    /// It lies, and nobody is told, as when a cable is out. Once the way is free it goes on, whoever waits for it still.
    Swallow,
    /// Connections break, and none can be made.
    Cut,
}

/// A way; it is closed with the value.
pub(super) struct Way {
    address: SocketAddr,
    state: watch::Sender<State>,
    _server: JoinSet<()>,
}

#[derive(Clone, Copy)]
struct State {
    manner: Manner,
    /// How often all connections were broken.
    breaks: u32,
}

impl Way {
    /// To a server on this machine.
    pub(super) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, theirs) = watch::channel(State { manner: Manner::Open, breaks: 0 });
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (mut ours, begun) = (theirs.clone(), theirs.borrow().breaks);
                let relay = relay(stream, port, theirs.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = relay => {}
                        _ = ours.wait_for(|state| state.manner == Manner::Cut || state.breaks != begun) => {}
                    }
                });
            }
        });
        Self { address, state, _server: server }
    }

    /// Where a user's program finds the database.
    pub(super) fn url(&self) -> String {
        format!("postgres://taskhook@{}/taskhook", self.address)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on.
    pub(super) fn set(&self, manner: Manner) {
        self.state.send_modify(|state| state.manner = manner);
    }

    /// Breaks all connections that there are; new ones can be made.
    pub(super) fn break_all(&self) {
        self.state.send_modify(|state| state.breaks += 1);
    }
}

async fn relay(stream: TcpStream, port: u16, mut state: watch::Receiver<State>) {
    if free(&mut state).await.is_none() {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((from, to), (from_server, to_server)) = (stream.into_split(), server.into_split());
    tokio::join!(pass(from, to_server, state.clone()), pass(from_server, to, state));
}

/// Passes on what comes, and its end.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        if free(&mut state).await.is_none() || read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits until the way is free.
async fn free(state: &mut watch::Receiver<State>) -> Option<()> {
    state.wait_for(|state| state.manner == Manner::Open).await.ok().map(drop)
}
