//! HTTP/2, with and without manners.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::Limits;
use super::harness::{PATIENCE, Running, limits};

async fn client(server: &Running) -> http2::SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn get(server: &Running, path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://{}{path}", server.address)).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn prior_knowledge_is_enough_and_one_connection_carries_many() {
    let server = Running::start(limits(), None).await;
    let client = client(&server).await;
    let answers = (0..50).map(|_| {
        let mut client = client.clone();
        let request = get(&server, "/hello");
        async move {
            let answer = client.send_request(request).await.unwrap();
            assert_eq!(answer.version(), http::Version::HTTP_2);
            answer.into_body().collect().await.unwrap().to_bytes()
        }
    });
    let answers = tokio::time::timeout(PATIENCE, futures::future::join_all(answers)).await.unwrap();
    assert!(answers.iter().all(|answer| answer == "hello"), "{answers:?}");
    drop(client);
    server.end().await;
}

#[tokio::test]
async fn a_stream_whose_window_stays_shut_is_given_up() {
    let mut server = Running::start(limits(), None).await;
    let mut client = client(&server).await;
    // The answer's body is not read, so its window fills, while the connection itself is well and answers pings.
    let _unread = client.send_request(get(&server, "/flood")).await.unwrap();
    assert_eq!(server.heard().await, "flood began");
    assert_eq!(server.heard().await, "flood dropped");
    server.end().await;
}

#[tokio::test]
async fn a_connection_of_streams_that_are_reset_at_once_is_ended() {
    let server = Running::start(Limits { idle: Duration::from_secs(60), ..limits() }, None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut attack = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    attack.extend(frame(4, 0, 0, &[]));
    for number in 0..2000u32 {
        let id = 2 * number + 1;
        // :method GET, :scheme http, :path /, :authority a: from the static table, one literal.
        attack.extend(frame(1, 5, id, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a']));
        attack.extend(frame(3, 0, id, &[0, 0, 0, 8]));
    }
    // It may close before it has read everything.
    let _closed = stream.write_all(&attack).await;
    let mut answer = Vec::new();
    let _reset = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is ended");
    server.end().await;
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
