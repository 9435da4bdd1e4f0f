//! Stand-ins: for the agent of a tunnel, and for the tunnel itself.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::harness::within;

/// What an agent answers.
pub(super) struct Agent(MockServer);

impl Agent {
    /// One that knows of no tunnel.
    pub(super) async fn start() -> Self {
        let agent = Self(MockServer::start().await);
        agent.ngrok(&[]).await;
        agent
    }

    pub(super) fn url(&self) -> String {
        self.0.uri()
    }

    /// From now on it is an ngrok with these tunnels, each with what it forwards to.
    pub(super) async fn ngrok(&self, tunnels: &[(&str, &str)]) {
        let endpoint = |(url, to): &(&str, &str)| json!({"name": "command_line", "url": url, "upstream": {"url": to}});
        let body = json!({"endpoints": tunnels.iter().map(endpoint).collect::<Vec<_>>(), "uri": "/api/endpoints"});
        self.0.reset().await;
        let answer = ResponseTemplate::new(200).set_body_json(body);
        Mock::given(path("/api/endpoints")).respond_with(answer).mount(&self.0).await;
    }

    /// From now on it is an ngrok of before `/api/endpoints`.
    pub(super) async fn ngrok_tunnels(&self, url: &str, to: &str) {
        let tunnel =
            json!({"name": "command_line", "public_url": url, "proto": "https", "config": {"addr": to, "inspect": true}});
        self.0.reset().await;
        let answer = ResponseTemplate::new(200).set_body_json(json!({"tunnels": [tunnel], "uri": "/api/tunnels"}));
        Mock::given(path("/api/tunnels")).respond_with(answer).mount(&self.0).await;
    }

    /// From now on it is a cloudflared with this quick tunnel.
    pub(super) async fn cloudflared(&self, hostname: &str) {
        self.0.reset().await;
        let answer = ResponseTemplate::new(200).set_body_string(json!({"hostname": hostname}).to_string());
        Mock::given(path("/quicktunnel")).respond_with(answer).mount(&self.0).await;
    }

    /// Waits until it was asked so often since its answers were set.
    pub(super) async fn asked(&self, often: usize) {
        let asked = async || self.0.received_requests().await.unwrap_or_default().len();
        within("the agent is asked", async {
            while asked().await < often {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// From now on it takes requests and answers none in time.
    pub(super) async fn never(&self) {
        self.0.reset().await;
        Mock::given(any()).respond_with(ResponseTemplate::new(200).set_delay(Duration::from_mins(1))).mount(&self.0).await;
    }
}

/// A tunnel: an address of its own that leads to another. It is gone when dropped.
pub(super) struct Front {
    address: SocketAddr,
    _task: JoinSet<()>,
}

impl Front {
    pub(super) async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut other) = TcpStream::connect(to).await {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
                    }
                });
            }
        });
        Self { address, _task: task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The webhook of the source `manus`.
    pub(super) fn webhook(&self) -> String {
        format!("{}/webhooks/manus", self.url())
    }
}
