//! Receives the hints of other nodes, on a connection of its own, for as long as the store is open.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::aio::PubSub;

use crate::link::{Connections, Opener, shortened, wait};
use crate::wake::Wake;

/// How often the connection is tried while nothing comes: one that was cut without a word would be silent for ever.
const TRY_EVERY: Duration = Duration::from_secs(10);

/// The pauses between tries to connect: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_LAST: Duration = Duration::from_secs(1);

/// Listens until the store is gone. `messages` is subscribed already, so that nothing is missed from the start.
pub(crate) async fn listen(
    opener: Opener,
    mut connections: Connections,
    channels: Vec<String>,
    wake: Arc<Wake>,
    messages: PubSub,
) {
    let mut number = connections.number();
    let mut messages = Some(messages);
    let mut pause = PAUSE_FIRST;
    loop {
        let subscribed = match messages.take() {
            Some(messages) => Ok(messages),
            None => opener.subscribe(&channels).await.inspect(|_| wake.missed()),
        };
        match subscribed {
            Ok(messages) => {
                pause = PAUSE_FIRST;
                if !receive(messages, &mut connections, &mut number, &wake).await {
                    return;
                }
            }
            Err(error) => tracing::debug!(error = %error, "the hints of other nodes cannot be heard, trying on"),
        }
        wait(shortened(pause)).await;
        pause = (pause * 2).min(PAUSE_LAST);
    }
}

/// Receives until the connection is lost, or the other one was made anew, maybe to another server. False if the store is
/// gone.
async fn receive(messages: PubSub, connections: &mut Connections, number: &mut Option<u64>, wake: &Wake) -> bool {
    let (mut sink, mut messages) = messages.split();
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => {
                    if let Ok(text) = std::str::from_utf8(message.get_payload_bytes()) {
                        wake.receive(text);
                    }
                }
                None => return true,
            },
            is_open = connections.changed() => {
                if !is_open {
                    return false;
                }
                let now = connections.number();
                if now.is_some() && now != *number {
                    *number = now;
                    return true;
                }
            }
            () = wait(TRY_EVERY) => {
                let answer = tokio::time::timeout(TRY_EVERY, sink.ping::<redis::Value>()).await;
                if !matches!(answer, Ok(Ok(_))) {
                    return true;
                }
            }
        }
    }
}
