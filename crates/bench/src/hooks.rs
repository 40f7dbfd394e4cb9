//! What status hooks cost the life cycles of jobs: off; on, but no job has one; on, and each job has one, whose receiver
//! answers at once. Delivery is apart from the slots of the workers: jobs do not wait for it.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::lifecycle::{Hooks, through_library};
use crate::stats::{say, thousands};

const WORKERS: usize = 100;

pub(crate) fn run(directory: &Path, jobs: usize) -> anyhow::Result<()> {
    say(format!("== hooks: life cycles a second with {WORKERS} workers"));
    let receiver = Receiver::start()?;
    for (what, hooks, jobs) in [
        ("off", Hooks::Off, jobs),
        ("on, no job has one", Hooks::On, jobs),
        ("on, each job has one", Hooks::OnEachJob(receiver.url.clone()), jobs / 10),
    ] {
        let dir = tempfile::tempdir_in(directory)?;
        let ours = through_library(&dir.path().join("jobs.db"), jobs, WORKERS, &hooks)?;
        say(format!("{what:>20}: {:>7}/s", thousands(ours)));
    }
    Ok(())
}

/// Answers every request with 204, on a thread of its own that ends with the process.
struct Receiver {
    url: String,
}

impl Receiver {
    fn start() -> anyhow::Result<Receiver> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let url = format!("http://{}/", listener.local_addr()?);
        std::thread::Builder::new().name("receiver".to_owned()).spawn(move || {
            runtime.block_on(async {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(answer(stream));
                }
            });
        })?;
        Ok(Receiver { url })
    }
}

/// Reads requests by their length and answers each. Whatever is odd ends the connection.
async fn answer(mut stream: tokio::net::TcpStream) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(read.get(..head)?).to_ascii_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
        while read.len() < head + length {
            if stream.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        read.drain(..head + length);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok()?;
    }
}
