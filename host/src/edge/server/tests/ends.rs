//! The end: what is under way finishes, what would not end is ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::super::Limits;
use super::harness::{Running, limits, rest, until};

#[tokio::test]
async fn a_call_in_flight_finishes_and_idle_connections_close() {
    let mut server = Running::start(Limits { idle: Duration::from_secs(60), ..limits() }, None).await;
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut idle = server.send(&request("/hello")).await;
    until(&mut idle, "hello").await;
    let mut fresh = server.send("").await;
    let mut busy = server.send(&request("/slow")).await;
    assert_eq!(server.heard().await, "slow began");
    let (address, release) = (server.address, Arc::clone(&server.release));
    let ended = tokio::spawn(server.end());
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut fresh).await, "");
    release.notify_one();
    assert!(rest(&mut busy).await.ends_with("at last"));
    let took = ended.await.unwrap();
    assert!(took < limits().drain, "{took:?}");
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn streams_are_ended_in_good_order_at_the_bound() {
    let server = Running::start(Limits { drain: Duration::from_millis(200), ..limits() }, None).await;
    let mut events = server.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut events, "data: 1").await;
    let mut socket =
        server.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    until(&mut socket, "101 Switching Protocols").await;
    socket.write_all(b"!").await.unwrap();
    until(&mut socket, "!").await;
    let ended = tokio::spawn(server.end());
    let last = rest(&mut events).await;
    assert!(last.ends_with("0\r\n\r\n"), "an event stream that breaks: {last:?}");
    assert_eq!(rest(&mut socket).await, "bye");
    let took = ended.await.unwrap();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn what_does_not_end_is_cut_off() {
    let limits = Limits { drain: Duration::from_millis(200), stall: Duration::from_secs(60), ..limits() };
    let mut server = Running::start(limits, None).await;
    let _unread = server.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(server.heard().await, "flood began");
    server.ask_to_end();
    assert_eq!(server.heard().await, "flood dropped");
    server.end().await;
}
