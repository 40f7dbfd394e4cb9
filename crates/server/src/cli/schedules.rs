//! `jobservice schedules`: look at schedules, pause and run them.

use std::process::ExitCode;

use anyhow::Result;
use jobservice_client::{Client, ScheduleAction};

use super::args::Schedules;
use super::{PAGE_MAX, each, print};

pub(super) async fn run(client: &Client, command: Schedules) -> Result<ExitCode> {
    match command {
        Schedules::List { json } => list(client, json).await,
        Schedules::Show { key, json } => {
            let schedule = client.schedule(&key).await?;
            if json {
                print::json(&schedule)?;
            } else {
                print::schedule(&schedule)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Schedules::Pause(keys) => {
            each(&keys.keys, "pause", |key| client.control_schedule(key, ScheduleAction::Pause)).await
        }
        Schedules::Resume(keys) => {
            each(&keys.keys, "resume", |key| client.control_schedule(key, ScheduleAction::Resume)).await
        }
        Schedules::Run(keys) => {
            each(&keys.keys, "run", async |key| {
                let submitted = client.run_schedule(key).await?;
                print::note(&format!("{key}: submitted {}", submitted.job.id));
                Ok(())
            })
            .await
        }
        Schedules::Delete(keys) => each(&keys.keys, "delete", |key| client.delete_schedule(key)).await,
        Schedules::Preview { cron, timezone, count, json } => {
            let preview = client.preview(&cron, timezone.as_deref(), count).await?;
            for warning in &preview.warnings {
                print::note(&format!("warning: {warning}"));
            }
            if json {
                print::json(&preview)?;
                return Ok(ExitCode::SUCCESS);
            }
            print::line(&preview.sentence)?;
            for time in &preview.next {
                print::line(&time.local)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn list(client: &Client, json: bool) -> Result<ExitCode> {
    if !json {
        print::schedules_head()?;
    }
    let mut cursor = None;
    loop {
        let page = client.schedules(PAGE_MAX, cursor.as_deref()).await?;
        for schedule in &page.schedules {
            if json { print::json(schedule)? } else { print::schedules_row(schedule)? }
        }
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}
