//! Periodic jobs over the wire: schedules, their executions, previews.

use jobservice_core::Status;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use crate::model::{Job, Submission, Submitted};
use crate::{Client, Result};

/// A schedule as the service shows it. Times are seconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The id of its Periodic job.
    pub id: String,
    /// Which code its executions run.
    pub name: String,
    /// scheduled, stopped or cancelled.
    pub status: Status,
    /// When they run.
    pub cron_spec: String,
    /// In which time zone.
    pub timezone: String,
    /// allow, skip, queue or replace.
    pub overlap: String,
    /// skip, last or all.
    pub misfire: String,
    /// Its key; one without is named by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_key: Option<String>,
    /// Whether it is paused.
    pub paused: bool,
    /// The last tick that fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fired: Option<i64>,
    /// How many executions its ticks made.
    pub fired: u64,
    /// How many ticks were passed over.
    pub skipped: u64,
    /// Its next tick; none if it is paused or has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due: Option<i64>,
    /// How late it is, in milliseconds.
    pub lag_ms: u64,
    /// Why it could not fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What its cron text means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
}

/// A page of schedules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedules {
    /// They themselves.
    pub schedules: Vec<Schedule>,
    /// The cursor of the next page; none after the last.
    pub next: Option<String>,
}

/// What can be done to a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleAction {
    /// It does not fire until it is resumed.
    Pause,
    /// It goes on from now.
    Resume,
}

/// When a cron text would be due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// What it means.
    pub sentence: String,
    /// The time zone.
    pub timezone: String,
    /// The next times.
    pub next: Vec<PreviewTime>,
    /// What may not be meant as it is written.
    pub warnings: Vec<String>,
}

/// One time of a preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewTime {
    /// In seconds since the epoch.
    pub at: i64,
    /// As the clocks of the time zone show it.
    pub local: String,
}

/// Which page of executions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutionsQuery {
    /// From 1.
    pub page_number: Option<usize>,
    /// 1 to 1000.
    pub page_size: Option<usize>,
    /// Only those that are not final.
    pub non_dead_only: bool,
}

impl Client {
    /// A page of the executions of a job, newest first, and how many there are on all pages.
    pub async fn executions(&self, id: &str, query: ExecutionsQuery) -> Result<(Vec<Job>, u64)> {
        let mut request = self.request(Method::GET, &["jobs", id, "executions"]);
        for (key, value) in [("page_number", query.page_number), ("page_size", query.page_size)] {
            if let Some(value) = value {
                request.url_mut().query_pairs_mut().append_pair(key, &value.to_string());
            }
        }
        if query.non_dead_only {
            request.url_mut().query_pairs_mut().append_pair("non_dead_only", "true");
        }
        let answer = self.send(request).await?;
        let total = answer.headers().get("total-count").and_then(|total| total.to_str().ok()?.parse().ok());
        let total = total.ok_or_else(|| self.unreadable("it does not say how many executions there are".to_owned()))?;
        Ok((self.read(answer).await?, total))
    }

    /// A page of schedules.
    pub async fn schedules(&self, limit: usize, cursor: Option<&str>) -> Result<Schedules> {
        let mut request = self.request(Method::GET, &["schedules"]);
        request.url_mut().query_pairs_mut().append_pair("limit", &limit.to_string());
        if let Some(cursor) = cursor {
            request.url_mut().query_pairs_mut().append_pair("cursor", cursor);
        }
        let answer = self.send(request).await?;
        let next = answer.headers().get("next-cursor").and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Schedules { schedules: self.read(answer).await?, next })
    }

    /// The schedule with this key or id.
    pub async fn schedule(&self, key: &str) -> Result<Schedule> {
        self.json(self.request(Method::GET, &["schedules", key])).await
    }

    /// Makes the schedule with this key, or changes what differs. Safe to repeat.
    pub async fn put_schedule(&self, key: &str, submission: &Submission) -> Result<Submitted> {
        let mut request = self.request(Method::PUT, &["schedules", key]);
        *request.body_mut() = Some(Client::submission_body(submission)?.into());
        self.submitted(request).await
    }

    /// Pauses a schedule or lets it go on.
    pub async fn control_schedule(&self, key: &str, action: ScheduleAction) -> Result<()> {
        let action = match action {
            ScheduleAction::Pause => "pause",
            ScheduleAction::Resume => "resume",
        };
        self.send(self.schedule_action(key, action)).await.map(drop)
    }

    /// Makes one execution of a schedule at once, beside its ticks.
    pub async fn run_schedule(&self, key: &str) -> Result<Submitted> {
        self.submitted(self.schedule_action(key, "run")).await
    }

    /// Ends a schedule with the executions that wait or run, and removes it.
    pub async fn delete_schedule(&self, key: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, &["schedules", key])).await.map(drop)
    }

    /// When a cron text would be due.
    pub async fn preview(&self, cron_spec: &str, timezone: Option<&str>, count: Option<usize>) -> Result<Preview> {
        let mut request = self.request(Method::POST, &["schedules", "preview"]);
        let body = serde_json::json!({"cron_spec": cron_spec, "timezone": timezone, "count": count});
        *request.body_mut() = Some(body.to_string().into());
        self.json(request).await
    }

    fn schedule_action(&self, key: &str, action: &str) -> reqwest::Request {
        let mut request = self.request(Method::POST, &["schedules", key]);
        *request.body_mut() = Some(format!("{{\"action\": \"{action}\"}}").into());
        request
    }
}
