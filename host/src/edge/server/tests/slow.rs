//! Clients that begin and do not go on.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::harness::{Running, limits, rest, until};

#[tokio::test]
async fn a_head_that_does_not_come_costs_its_own_bound_and_idleness_another() {
    let server = Running::start(limits(), None).await;
    let began = Instant::now();
    let mut half = server.send("GET /hello HTT").await;
    assert_eq!(rest(&mut half).await, "");
    let took = began.elapsed();
    assert!(took >= limits().head && took < limits().idle, "half a head: {took:?}");

    let mut idle = server.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let began = Instant::now();
    assert!(until(&mut idle, "hello").await.starts_with("HTTP/1.1 200"));
    assert_eq!(rest(&mut idle).await, "");
    assert!(began.elapsed() >= limits().idle, "kept for {:?}", began.elapsed());

    // One byte now and then does not stretch a head.
    let mut dripping = server.send("G").await;
    let began = Instant::now();
    let mut drops = tokio::time::interval(limits().head / 6);
    loop {
        drops.tick().await;
        if dripping.write_all(b"x").await.is_err() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "a dripping head is still heard");
    }
    server.end().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_an_error_for_its_handler() {
    let mut server = Running::start(limits(), None).await;
    let head = "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    let mut stopped = server.send(&format!("{head}12345")).await;
    assert_eq!(server.heard().await, "no body");
    drop(rest(&mut stopped).await);

    // Slow is not stopped.
    let mut slow = server.send(head).await;
    let mut drops = tokio::time::interval(limits().stall / 5);
    for _ in 0..10 {
        drops.tick().await;
        slow.write_all(b"1").await.unwrap();
    }
    assert_eq!(server.heard().await, "body");
    server.end().await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let mut server = Running::start(limits(), None).await;
    let _unread = server.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(server.heard().await, "flood began");
    assert_eq!(server.heard().await, "flood dropped");
    server.end().await;
}

#[tokio::test]
async fn a_head_has_a_size_and_a_number_of_headers() {
    let server = Running::start(limits(), None).await;
    for head in [
        format!("GET /hello HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(100 << 10)),
        format!("GET /hello HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(200)),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // It may close before it has read everything.
        let _closed = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    server.end().await;
}

#[tokio::test]
async fn connections_over_the_bound_wait_for_a_place() {
    let server = Running::start(super::super::Limits { connections: 2, ..limits() }, None).await;
    let request = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = server.send(request).await;
    let mut second = server.send(request).await;
    until(&mut first, "hello").await;
    until(&mut second, "hello").await;
    let mut third = server.send(request).await;
    let early = tokio::time::timeout(Duration::from_millis(200), until(&mut third, "hello")).await;
    assert!(early.is_err(), "a third connection was answered: {early:?}");
    drop(first);
    until(&mut third, "hello").await;
    server.end().await;
}
