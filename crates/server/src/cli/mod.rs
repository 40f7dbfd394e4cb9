//! The command line: starts the service, or talks to one.

mod args;
mod bulk;
mod config;
pub(crate) mod connect;
mod hooks;
mod parameters;
pub(crate) mod print;
mod queues;
mod schedules;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use anyhow::bail;
use futures_util::StreamExt as _;
use jobservice_client::{Action, BulkAction, Client, Error, Job, ListQuery, LogQuery, Submission};
use jobservice_core::{Kind, Status};

pub(crate) use args::{Cli, Command};
pub(crate) use config::config;

use connect::Connection;

/// The job failed, or the service refused.
const FAILED: u8 = 1;
/// The command or the request makes no sense. clap uses it too.
const WRONG_USAGE: u8 = 2;
/// The job was stopped or cancelled.
const ENDED_EARLY: u8 = 3;
/// The job is not final, but waited for long enough.
const NOT_YET: u8 = 4;
/// Nobody answered.
const NO_ANSWER: u8 = 5;

/// How often who waits looks for progress.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The most jobs of one page.
const PAGE_MAX: usize = 1000;

/// Carries out a command against a service.
pub(crate) async fn run(cli: &Cli, command: Command) -> ExitCode {
    if let Command::Hooks(args::Hooks { action: Some(args::HookAction::Verify(verify)), .. }) = &command {
        return hooks::verify(verify).unwrap_or_else(|error| {
            print::note(&format!("error: {error:#}"));
            WRONG_USAGE.into()
        });
    }
    let connection = match connect::connect(&cli.general.connect, cli.general.data_dir.as_deref()) {
        Ok(connection) => connection,
        Err(error) => {
            print::note(&format!("error: {error:#}"));
            return if error.is::<Error>() { WRONG_USAGE.into() } else { NO_ANSWER.into() };
        }
    };
    match carry_out(&connection.client, command).await {
        Ok(code) => code,
        Err(error) => failed(&error, &connection),
    }
}

/// Says what went wrong and what can be done about it.
fn failed(error: &anyhow::Error, connection: &Connection) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    print::note(&format!("error: {error:#}"));
    match error.downcast_ref::<Error>() {
        Some(Error::NoAnswer { .. } | Error::TooSlow { .. }) => {
            print::note(
                "is the service running? Start it with `jobservice`, or name another with --url or JOBSERVICE_URL",
            );
            NO_ANSWER.into()
        }
        Some(Error::Refused(refused)) if refused.code == 401 => {
            print::note(&format!(
                "the secret was that of {}; the service was started with another",
                connection.secret_from
            ));
            FAILED.into()
        }
        Some(Error::Refused(refused)) if refused.code == 400 => WRONG_USAGE.into(),
        _ => FAILED.into(),
    }
}

async fn carry_out(client: &Client, command: Command) -> Result<ExitCode> {
    match command {
        Command::Submit(submit) => self::submit(client, *submit).await,
        Command::Get { id, json } => {
            let job = client.get(&id).await?;
            if json {
                print::json(&job)?;
            } else {
                print::job(&job)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::List(list) => self::list(client, list).await,
        Command::Log { id, follow, tail } => {
            let mut log = Box::pin(client.log(&id, LogQuery { follow, tail, offset: None }).await?);
            while let Some(piece) = log.next().await {
                print::log(&piece?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Hooks(args) => hooks::run(client, args).await,
        Command::Schedules(command) => schedules::run(client, command).await,
        Command::Queues { what } => queues::run(client, what.unwrap_or(args::Queues::List { json: false })).await,
        Command::Batch { file, json } => bulk::batch(client, &file, json).await,
        Command::Stats { json } => queues::pools(client, json).await,
        Command::Counts { json } => queues::counts(client, json).await,
        Command::Minutes { name, since, json } => queues::minutes(client, name.as_deref(), &since, json).await,
        Command::Stop(which) if which.ids.is_empty() => bulk::act(client, BulkAction::Stop, &which.filter).await,
        Command::Cancel(which) if which.ids.is_empty() => bulk::act(client, BulkAction::Cancel, &which.filter).await,
        Command::Retry(which) if which.ids.is_empty() => bulk::act(client, BulkAction::Retry, &which.filter).await,
        Command::Delete(which) if which.ids.is_empty() => bulk::act(client, BulkAction::Delete, &which.filter).await,
        Command::Stop(which) => each(&which.ids, "stop", |id| client.control(id, Action::Stop)).await,
        Command::Cancel(which) => each(&which.ids, "cancel", |id| client.control(id, Action::Cancel)).await,
        Command::Retry(which) => each(&which.ids, "retry", |id| client.control(id, Action::Retry)).await,
        Command::Delete(which) => each(&which.ids, "delete", |id| client.delete(id)).await,
        // They need no service, and are carried out before one is looked for.
        Command::Doctor { .. } | Command::Backup { .. } | Command::Restore { .. } => {
            bail!("this is done on the host of the store")
        }
        Command::Config { .. } => anyhow::bail!("the configuration is looked at without a service"),
    }
}

async fn submit(client: &Client, args: args::Submit) -> Result<ExitCode> {
    let mut submission = Submission::new(args.name);
    if let Some(parameters) = parameters::read(&args.parameters)? {
        submission = submission.parameters(parameters)?;
    }
    submission.status_hook = args.hook;
    let metadata = &mut submission.metadata;
    if let Some(after) = args.after {
        metadata.kind = Kind::Scheduled;
        metadata.schedule_delay = Some(whole_seconds(after));
    }
    if let Some(cron) = args.cron {
        metadata.kind = Kind::Periodic;
        metadata.cron_spec = Some(cron);
    }
    metadata.timezone = args.timezone;
    metadata.overlap = args.overlap;
    metadata.misfire = args.misfire;
    metadata.schedule_key = args.schedule_key;
    metadata.unique = args.unique;
    metadata.priority = args.priority;
    metadata.max_fails = args.max_fails;
    metadata.timeout = args.timeout.map(whole_seconds);
    metadata.retention = args.retention.map(whole_seconds);
    metadata.tags = args.tag;
    metadata.idempotency_key = args.idempotency_key;

    let submitted = client.submit(&submission).await?;
    for warning in &submitted.warnings {
        print::note(&format!("warning: {warning}"));
    }
    if let Some(outcome) = &submitted.outcome {
        print::note(outcome);
    }
    let mut job = submitted.job;
    if let Some(wait) = args.wait {
        print::note(&format!("submitted {}", job.id));
        job = self::wait(client, job, wait).await?;
    }
    if args.json {
        print::json(&job)?;
    } else if args.wait.is_some() {
        print::job(&job)?;
    } else {
        print::line(&job.id)?;
    }
    Ok(match (args.wait, job.status) {
        (None, _) | (_, Status::Success) => ExitCode::SUCCESS,
        (_, Status::Error) => FAILED.into(),
        (_, Status::Stopped | Status::Cancelled) => ENDED_EARLY.into(),
        (_, Status::Scheduled | Status::Pending | Status::Running) => NOT_YET.into(),
    })
}

/// The API counts in seconds; less than one is one.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000) as u64
}

/// Waits for the end of a job, telling what happens to it.
async fn wait(client: &Client, mut job: Job, at_most: Duration) -> Result<Job> {
    let mut told = (job.status, job.check_in.clone(), job.attempt);
    print::note(job.status.as_str());
    let waited = async {
        while !job.status.is_final() {
            job = client.wait(&job.id, LOOK_EVERY).await?;
            let now = (job.status, job.check_in.clone(), job.attempt);
            if (now.0, now.2) != (told.0, told.2) {
                let error = job.error.as_ref().filter(|_| job.status != Status::Success);
                let error = error.map_or_else(String::new, |error| format!(": {error}"));
                print::note(&format!("{} (attempt {}){error}", job.status, job.attempt));
            }
            if now.1 != told.1
                && let Some(check_in) = &job.check_in
            {
                print::note(&format!("check-in {check_in}"));
            }
            told = now;
        }
        Ok::<(), Error>(())
    };
    match tokio::time::timeout(at_most, waited).await {
        Ok(Ok(())) => Ok(job),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            print::note(&format!("not final after {}: it goes on", crate::duration::show(at_most)));
            Ok(job)
        }
    }
}

async fn list(client: &Client, args: args::List) -> Result<ExitCode> {
    let mut left = if args.all { usize::MAX } else { args.limit };
    let mut query = ListQuery {
        status: args.status,
        name: args.name,
        tag: args.tag,
        upstream: args.upstream,
        kind: args.kind,
        since: args.since,
        until: args.until,
        text: args.text,
        limit: None,
        cursor: None,
    };
    if !args.json {
        print::list_head()?;
    }
    while left > 0 {
        query.limit = Some(left.min(PAGE_MAX));
        let page = client.list(&query).await?;
        left = left.saturating_sub(page.jobs.len());
        for job in &page.jobs {
            if args.json { print::json(job)? } else { print::list_row(job)? }
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
    if !args.json {
        print::note("there are more: --all shows them, --limit how many");
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something to each of several jobs; what fails for one does not hold up the others.
async fn each<'a, F>(ids: &'a [String], what: &str, act: impl Fn(&'a str) -> F) -> Result<ExitCode>
where
    F: Future<Output = jobservice_client::Result<()>> + 'a,
{
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        match act(id).await {
            Ok(()) => print::line(&format!("{id} {what}: done"))?,
            Err(error @ Error::NoAnswer { .. }) => return Err(error.into()),
            Err(error) => {
                print::note(&format!("{id} {what}: {error}"));
                code = FAILED.into();
            }
        }
    }
    Ok(code)
}
