//! Many jobs at once: a file of them, and the same to all that a filter means.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use jobservice_client::{BulkAction, BulkDone, Client, ListQuery};
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{FAILED, print};

/// Jobs of one request.
const PART_JOBS: usize = 1000;

/// Bytes of one request, about; far below what the service takes, so that one large job more always fits.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// Jobs that are read ahead.
const AHEAD: usize = 256;

/// Submits the jobs of a file, a part at a time.
pub(super) async fn batch(client: &Client, file: &str, json: bool) -> Result<ExitCode> {
    let reader: Box<dyn BufRead + Send> = match file {
        "-" => Box::new(BufReader::new(std::io::stdin())),
        path => Box::new(BufReader::new(File::open(path).with_context(|| format!("cannot read {path}"))?)),
    };
    let (sender, mut jobs) = mpsc::channel(AHEAD);
    // Reading blocks, and a pipe may be slow.
    let read = std::thread::Builder::new().name("batch".to_owned()).spawn(move || read(reader, &sender));
    read.context("cannot start a thread")?;

    let mut progress = Progress::default();
    let mut part: Vec<Box<RawValue>> = Vec::new();
    let mut bytes = 0;
    while let Some(job) = jobs.recv().await {
        let job = match job {
            Ok(job) => job,
            Err(error) => {
                // What was read before is submitted; the count says how far that is.
                progress.submit(client, &mut part, json).await?;
                return Err(error.context(format!("cannot read {file} any further, after {} jobs", progress.seen)));
            }
        };
        bytes += job.get().len();
        part.push(job);
        if part.len() >= PART_JOBS || bytes >= PART_BYTES {
            progress.submit(client, &mut part, json).await?;
            bytes = 0;
        }
    }
    progress.submit(client, &mut part, json).await?;
    Ok(if progress.refused > 0 { FAILED.into() } else { ExitCode::SUCCESS })
}

#[derive(Default)]
struct Progress {
    seen: u64,
    refused: u64,
}

impl Progress {
    async fn submit(&mut self, client: &Client, part: &mut Vec<Box<RawValue>>, json: bool) -> Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let answers = client.batch(part).await?;
        part.clear();
        for answer in &answers {
            self.seen += 1;
            if json {
                print::line(&serde_json::to_string(answer)?)?;
            } else if let Some(job) = &answer.job {
                print::line(&job.id)?;
            }
            for warning in &answer.warnings {
                print::note(&format!("job {}: warning: {warning}", self.seen));
            }
            if answer.job.is_none() {
                self.refused += 1;
                let why = answer.description.as_deref().or(answer.err.as_deref()).unwrap_or("refused");
                print::note(&format!("job {}: {why}", self.seen));
            }
        }
        print::note(&format!("{} submitted, {} refused", self.seen - self.refused, self.refused));
        Ok(())
    }
}

type Sender = mpsc::Sender<Result<Box<RawValue>>>;

/// Reads an array, or one object after the other, and sends each job on. Ends early when nobody listens any more.
fn read(mut reader: Box<dyn BufRead + Send>, sender: &Sender) {
    let result = match first_byte(&mut reader) {
        Ok(Some(b'[')) => {
            let mut deserializer = serde_json::Deserializer::from_reader(reader);
            deserializer.deserialize_seq(Elements(sender)).and_then(|()| deserializer.end()).map_err(Into::into)
        }
        Ok(_) => {
            let mut jobs = serde_json::Deserializer::from_reader(reader).into_iter::<Box<RawValue>>();
            jobs.try_for_each(|job| sender.blocking_send(Ok(job?)).map_err(|_| anyhow!("nobody listens any more")))
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = result {
        // Nobody listens: then nobody needs to know.
        drop(sender.blocking_send(Err(error)));
    }
}

/// The first byte that is no space, left in the reader.
fn first_byte(reader: &mut dyn BufRead) -> std::io::Result<Option<u8>> {
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let spaces = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let first = bytes.get(spaces).copied();
        reader.consume(spaces);
        if first.is_some() {
            return Ok(first);
        }
    }
}

/// Reads an array element by element: a file of a million jobs is never in memory as a whole.
struct Elements<'a>(&'a Sender);

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of jobs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(job) = seq.next_element()? {
            self.0.blocking_send(Ok(job)).map_err(|_| A::Error::custom("nobody listens any more"))?;
        }
        Ok(())
    }
}

/// Does the same to all jobs that a filter means, telling how far it is.
pub(super) async fn act(client: &Client, action: BulkAction, filter: &[String]) -> Result<ExitCode> {
    let filter = read_filter(filter)?;
    let mut all = BulkDone::default();
    loop {
        let cursor = all.next.take();
        all.add(client.act(action, &filter, cursor.as_deref()).await?);
        if all.next.is_none() {
            break;
        }
        print::note(&format!("{} so far", summary(action, &all)));
    }
    print::line(&summary(action, &all))?;
    Ok(if all.refused > 0 { FAILED.into() } else { ExitCode::SUCCESS })
}

fn summary(action: BulkAction, done: &BulkDone) -> String {
    let mut text = format!("{}: {} of {} done", action.as_str(), done.done, done.matched);
    for (count, what) in
        [(done.signalled, "running and told to end"), (done.unchanged, "unchanged"), (done.refused, "refused")]
    {
        if count > 0 {
            text = format!("{text}, {count} {what}");
        }
    }
    text
}

/// Reads `key=value` pairs, or `all`.
fn read_filter(given: &[String]) -> Result<ListQuery> {
    let mut query = ListQuery::default();
    if given == ["all"] {
        return Ok(query);
    }
    for pair in given {
        let (key, value) = pair
            .split_once('=')
            .with_context(|| format!("cannot read the filter {pair:?}: give key=value, or all alone for every job"))?;
        let slot = match key {
            "status" => &mut query.status,
            "name" => &mut query.name,
            "tag" => &mut query.tag,
            "upstream" => &mut query.upstream,
            "kind" => &mut query.kind,
            "since" => &mut query.since,
            "until" => &mut query.until,
            "q" | "text" => &mut query.text,
            _ => bail!("there is no filter {key:?}; known are status, name, tag, upstream, kind, since, until, q"),
        };
        if slot.replace(value.to_owned()).is_some() {
            bail!("the filter {key:?} is given twice");
        }
    }
    Ok(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(text: &'static str) -> (Vec<String>, Option<String>) {
        let (sender, mut jobs) = mpsc::channel(100);
        read(Box::new(text.as_bytes()), &sender);
        drop(sender);
        let (mut read, mut error) = (Vec::new(), None);
        while let Ok(job) = jobs.try_recv() {
            match job {
                Ok(job) => read.push(job.get().to_owned()),
                Err(found) => error = Some(found.to_string()),
            }
        }
        (read, error)
    }

    #[test]
    fn a_file_is_an_array_or_one_job_after_the_other() {
        for text in ["[{\"a\": 1.0}, {}]", " \n{\"a\": 1.0}\n{}\n", "{\"a\": 1.0}{}"] {
            assert_eq!(jobs(text), (vec!["{\"a\": 1.0}".to_owned(), "{}".to_owned()], None), "{text}");
        }
        assert_eq!(jobs(""), (Vec::new(), None));
        for broken in ["[{}, ", "{}\n{", "[{}] x"] {
            let (read, error) = jobs(broken);
            assert!(read == ["{}"] && error.is_some(), "{broken}: {error:?}");
        }
    }

    #[test]
    fn filters_are_pairs_or_all() {
        let given = |texts: &[&str]| read_filter(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let query = given(&["status=pending", "q=a=b"]).unwrap();
        assert_eq!((query.status.as_deref(), query.text.as_deref()), (Some("pending"), Some("a=b")));
        assert!(given(&["all"]).unwrap().status.is_none());
        for bad in [&["all", "name=x"][..], &["x=1"], &["name=a", "name=b"], &["name"]] {
            assert!(given(bad).is_err(), "{bad:?}");
        }
    }
}
