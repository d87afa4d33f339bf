//! Carried between two ends in memory.

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::relay;
use crate::runtime::{Close, Endings};

struct Never(Option<Close>);

#[async_trait]
impl Endings for Never {
    async fn must_end(&self) -> Close {
        std::future::pending().await
    }
    async fn why_gone(&self) -> Option<Close> {
        self.0
    }
}

/// Ends when it is told to.
struct When(std::sync::Arc<tokio::sync::Notify>);

#[async_trait]
impl Endings for When {
    async fn must_end(&self) -> Close {
        self.0.notified().await;
        Close { code: 4401, reason: "over" }
    }
    async fn why_gone(&self) -> Option<Close> {
        None
    }
}

type Ended = tokio::task::JoinHandle<(u64, &'static str)>;

fn carried(endings: impl Endings + 'static) -> (DuplexStream, DuplexStream, Ended) {
    let (client, ours) = duplex(1 << 10);
    let (theirs, runtime) = duplex(1 << 10);
    (client, runtime, tokio::spawn(async move { relay(ours, theirs, &endings).await }))
}

async fn all(mut stream: DuplexStream) -> Vec<u8> {
    let mut seen = Vec::new();
    stream.read_to_end(&mut seen).await.unwrap();
    seen
}

const HELLO: &[u8] = &[0x82, 2, b'h', b'i'];

#[tokio::test]
async fn bytes_go_both_ways_and_a_close_is_passed_on() {
    let (mut client, mut runtime, ended) = carried(Never(None));
    client.write_all(b"anything").await.unwrap();
    let mut up = [0; 8];
    runtime.read_exact(&mut up).await.unwrap();
    assert_eq!(&up, b"anything");
    runtime.write_all(HELLO).await.unwrap();
    runtime.write_all(&[0x88, 2, 0x03, 0xE8]).await.unwrap();
    assert_eq!(all(client).await, [HELLO, &[0x88, 2, 0x03, 0xE8]].concat());
    assert_eq!(ended.await.unwrap(), (4, "complete"));
}

#[tokio::test]
async fn a_session_that_ends_says_so_instead() {
    let (client, mut runtime, ended) = carried(Never(Some(Close { code: 4409, reason: "" })));
    runtime.write_all(HELLO).await.unwrap();
    runtime.write_all(&[0x88, 2, 0x03, 0xE8]).await.unwrap();
    assert_eq!(all(client).await, [HELLO, &[0x88, 2, 0x11, 0x39]].concat());
    ended.await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_goes_without_a_word_is_1011_between_frames_and_nothing_within_one() {
    let (client, mut runtime, ended) = carried(Never(None));
    runtime.write_all(HELLO).await.unwrap();
    drop(runtime);
    let seen = all(client).await;
    assert_eq!(seen[..4], *HELLO);
    assert_eq!(seen[4..8], [0x88, 23, 0x03, 0xF3], "{seen:?}");
    assert_eq!(ended.await.unwrap(), (4, "runtime_gone"));

    let (client, mut runtime, ended) = carried(Never(None));
    runtime.write_all(&[0x82, 9, b'c', b'u', b't']).await.unwrap();
    drop(runtime);
    assert_eq!(all(client).await, [0x82, 9, b'c', b'u', b't']);
    ended.await.unwrap();
}

#[tokio::test]
async fn bay_may_end_it() {
    let now = std::sync::Arc::default();
    let (mut client, mut runtime, ended) = carried(When(std::sync::Arc::clone(&now)));
    runtime.write_all(HELLO).await.unwrap();
    let mut said = [0; HELLO.len()];
    client.read_exact(&mut said).await.unwrap();
    now.notify_one();
    assert_eq!(all(client).await[..4], [0x88, 6, 0x11, 0x31]);
    assert_eq!(ended.await.unwrap().1, "complete");
}

#[tokio::test]
async fn a_client_that_goes_takes_the_runtimes_side_along() {
    let (client, mut runtime, ended) = carried(Never(None));
    drop(client);
    assert_eq!(ended.await.unwrap(), (0, "client_gone"));
    assert_eq!(runtime.read(&mut [0]).await.unwrap(), 0);
}
