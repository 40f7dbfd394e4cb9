//! A small balancer for trying several nodes on one machine: `balancer LISTEN NODE...`, each `host:port`. Every connection
//! goes to the next node that is ready, as `/readyz` says once a second; one that cannot be reached is skipped at once.
//!
//! By connection and not by request, so that whatever the API does goes through it: streams, uploads, HTTP/2. For
//! production take the balancer that you have, and point its health check to `/readyz`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long a node may take to accept a connection, and to say whether it is ready.
const PATIENCE: Duration = Duration::from_secs(2);

struct Node {
    address: String,
    is_ready: AtomicBool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (listen, nodes) = (args.next(), args.map(node).collect::<Arc<[Node]>>());
    let Some(listen) = listen.filter(|_| !nodes.is_empty()) else {
        eprintln!("usage: balancer LISTEN NODE..., each host:port");
        return ExitCode::FAILURE;
    };
    let listener = match TcpListener::bind(&listen).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on {listen}: {error}");
            return ExitCode::FAILURE;
        }
    };
    for at in 0..nodes.len() {
        tokio::spawn(watch(Arc::clone(&nodes), at));
    }
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(carry(client, Arc::clone(&nodes), Arc::clone(&turn)))),
            // Too many open files, say: those that end make room.
            Err(error) => eprintln!("cannot accept: {error}"),
        }
    }
}

fn node(address: String) -> Node {
    Node { address, is_ready: AtomicBool::new(false) }
}

/// Looks once a second whether the node is ready, and says when that changes.
async fn watch(nodes: Arc<[Node]>, at: usize) {
    let Some(Node { address, is_ready }) = nodes.get(at) else { return };
    let client = reqwest::Client::new();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = client.get(format!("http://{address}/readyz")).timeout(PATIENCE).send().await;
        let now = answer.is_ok_and(|answer| answer.status().is_success());
        if is_ready.swap(now, Ordering::Relaxed) != now {
            println!("balancer: {address} is {}", if now { "ready" } else { "not ready" });
        }
    }
}

/// Carries one connection to a node and back, until both sides have closed.
async fn carry(mut client: TcpStream, nodes: Arc<[Node]>, turn: Arc<AtomicUsize>) {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    let in_turn = || (0..nodes.len()).filter_map(|step| nodes.get((first + step) % nodes.len()));
    // If none is ready one of them is to say why.
    let (ready, others): (Vec<&Node>, Vec<&Node>) = in_turn().partition(|node| node.is_ready.load(Ordering::Relaxed));
    for node in ready.into_iter().chain(others) {
        if let Ok(Ok(mut server)) = timeout(PATIENCE, TcpStream::connect(&node.address)).await {
            client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).ok();
            // Either side may break off, which ends the other.
            copy_bidirectional(&mut client, &mut server).await.ok();
            return;
        }
    }
}
