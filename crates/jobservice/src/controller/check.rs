//! What a submission must satisfy before it may touch the store.
//!
//! The order of the checks is the order of the answers: fields first (all bad ones in one answer), then the name, then
//! what the job itself says of its parameters.

use std::sync::Arc;
use std::time::Duration;

use jobservice_core::cron::Schedule;
use jobservice_core::job::{Job, Kind, Retention, Spec};
use jobservice_core::policy::{Policy, PolicySpec};
use jobservice_core::store::NewJob;
use jobservice_core::unique::{self, Unique};
use jobservice_core::{Name, Store, Time, limits};

use super::{FieldError, Submission, SubmitError};
use crate::Registry;
use crate::hooks::AddressPolicy;
use crate::retention::RetentionRules;

/// The latest time that a job may be due: the end of the year 9999. A run_at beyond it is a mistake of units.
const RUN_AT_MAX: Time = Time::from_seconds(253_402_300_799);

/// What a submission makes.
pub(super) enum New {
    /// A job.
    Job(Box<NewJob>),
    /// A policy, and what may not be meant as it is written.
    Policy(Box<Policy>, Vec<String>),
}

/// What a submission is held against.
pub(super) struct Rules<'a> {
    pub(super) registry: &'a Registry,
    pub(super) retention: &'a RetentionRules,
    /// Where hooks may go; none if they are off.
    pub(super) hooks: Option<&'a AddressPolicy>,
    /// What the wall clock shows, which policies follow.
    pub(super) wall: Time,
    /// Makes the ids.
    pub(super) store: &'a dyn Store,
}

/// Makes the record of a submission, or says all that is wrong with it.
pub(super) fn new(submission: Submission, rules: &Rules<'_>, now: Time) -> Result<New, SubmitError> {
    let Rules { registry, retention, hooks, wall, store } = *rules;
    let mut bad = Bad::default();
    let name = bad.read("name", Name::new(&submission.name), "give a name that is registered with the service");
    let run_at = bad.run_at(&submission, now);
    let schedule = bad.schedule(&submission);
    bad.check_hook(submission.hook.as_deref(), hooks);
    bad.check_limits(&submission);
    let parameters: Arc<str> = match &submission.parameters {
        Some(parameters) => parameters.get().into(),
        None => "{}".into(),
    };
    if parameters.len() > limits::PARAMETERS_BYTES_MAX {
        bad.say(
            "parameters",
            format!("has {} bytes, at most {} are allowed", parameters.len(), limits::PARAMETERS_BYTES_MAX),
            "store the input elsewhere and give its address",
        );
    }
    let (Some(name), true) = (name, bad.0.is_empty()) else { return Err(SubmitError::Invalid(bad.0)) };

    let Some(info) = registry.get(name.as_str()) else { return Err(unknown(submission.name, registry)) };
    if let Err(problem) = registry.validate(name.as_str(), &parameters) {
        bad.say("parameters", problem, "see what the job expects");
        return Err(SubmitError::Invalid(bad.0));
    }
    let unique = match unique_key(&submission, &name, &parameters) {
        Ok(unique) => unique,
        Err(problem) => {
            bad.say("parameters", problem, "a unique job needs parameters that can be compared");
            return Err(SubmitError::Invalid(bad.0));
        }
    };
    let max_fails = submission.max_fails.filter(|max_fails| *max_fails > 0);
    let retention = submission.retention_seconds.map_or_else(|| retention.of(&name), Retention::all);
    if let Some(schedule) = schedule {
        let spec = PolicySpec {
            schedule_key: submission.schedule_key.map(Arc::from),
            name,
            parameters,
            cron: submission.cron.unwrap_or_default().into(),
            timezone: schedule.timezone().into(),
            misfire: submission.misfire.unwrap_or_default(),
            overlap: submission.overlap.unwrap_or_default(),
            priority: submission.priority.unwrap_or(info.priority),
            max_fails: max_fails.unwrap_or(info.max_fails),
            timeout: submission.timeout.or(info.timeout),
            hook: submission.hook.map(Arc::from),
            unique: unique.map(|unique| unique.scope),
            unique_key: submission.unique_key.map(Arc::from),
            tags: submission.tags.iter().map(|tag| Arc::from(tag.as_str())).collect(),
            retention,
        };
        let policy = Policy::submitted(store.new_id(&spec.name), spec, schedule.next_after(wall), wall);
        return Ok(New::Policy(Box::new(policy), schedule.warnings()));
    }
    let spec = Spec {
        name,
        kind: submission.kind,
        parameters,
        priority: submission.priority.unwrap_or(info.priority),
        unique,
        max_fails: max_fails.unwrap_or(info.max_fails),
        timeout: submission.timeout.or(info.timeout),
        hook: submission.hook.map(Arc::from),
        upstream: submission.upstream,
        tags: submission.tags.iter().map(|tag| Arc::from(tag.as_str())).collect(),
        retention,
        enqueued_at: now,
    };
    Ok(New::Job(Box::new(NewJob {
        job: Job::submitted(store.new_id(&spec.name), spec, run_at, now),
        idempotency_key: submission.idempotency_key.map(Arc::from),
        launched_by: None,
    })))
}

fn unknown(name: String, registry: &Registry) -> SubmitError {
    let known = registry.jobs().map(|info| info.name.to_string()).collect();
    let suggestion = registry.suggestion(&name).map(ToString::to_string);
    SubmitError::UnknownName { name, known, suggestion }
}

fn unique_key(submission: &Submission, name: &Name, parameters: &str) -> Result<Option<Unique>, String> {
    if !submission.unique && submission.unique_key.is_none() {
        return Ok(None);
    }
    let digest = match &submission.unique_key {
        Some(key) => unique::digest_key(name, key),
        None => unique::digest(name, parameters).map_err(|error| error.to_string())?,
    };
    Ok(Some(Unique { digest, scope: submission.unique_scope.unwrap_or_default() }))
}

/// The bad fields found so far.
#[derive(Default)]
struct Bad(Vec<FieldError>);

impl Bad {
    fn say(&mut self, field: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(FieldError { field: field.to_owned(), problem: problem.into(), remedy: remedy.into() });
    }

    fn read<T, E: std::fmt::Display>(&mut self, field: &str, read: Result<T, E>, remedy: &str) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                self.say(field, error.to_string(), remedy);
                None
            }
        }
    }

    /// What can be told of a hook without looking up its name.
    pub(super) fn check_hook(&mut self, hook: Option<&str>, policy: Option<&AddressPolicy>) {
        let Some(hook) = hook else { return };
        match policy.map(|policy| policy.check_url(hook)) {
            Some(Ok(_)) => {}
            Some(Err(refused)) => self.say("status_hook", refused.problem, refused.remedy),
            None => self.say(
                "status_hook",
                "status hooks are off (hooks.enabled)",
                "leave it out and ask for the job's status",
            ),
        }
    }

    /// When the job is due, if not at once.
    fn run_at(&mut self, submission: &Submission, now: Time) -> Option<Time> {
        let (delay, run_at) = (submission.delay, submission.run_at);
        let is_scheduled = submission.kind == Kind::Scheduled;
        if delay.is_some() && run_at.is_some() {
            self.say("metadata.run_at", "given together with schedule_delay", "give one of the two");
        }
        if !is_scheduled {
            for (field, given) in [("schedule_delay", delay.is_some()), ("run_at", run_at.is_some())] {
                if given && submission.kind == Kind::Generic {
                    let field = format!("metadata.{field}");
                    self.say(&field, "a Generic job runs as soon as it can", "make its kind Scheduled");
                }
            }
            return None;
        }
        match (delay, run_at) {
            (None, None) => self.say(
                "metadata.schedule_delay",
                "a Scheduled job needs to know when",
                "give a delay of at least 1 second, or run_at",
            ),
            (Some(delay), _) if delay.is_zero() => {
                self.say("metadata.schedule_delay", "must be more than 0", "give a delay of at least 1 second");
            }
            (Some(delay), _) if delay > limits::DELAY_MAX => self.say(
                "metadata.schedule_delay",
                format!("is {} s, at most {} are allowed", delay.as_secs(), limits::DELAY_MAX.as_secs()),
                "seconds are expected",
            ),
            (None, Some(at)) if at <= Time::from_seconds(0) || at > RUN_AT_MAX => {
                self.say("metadata.run_at", "is not a time of our era", "seconds since 1970 are expected");
            }
            _ => {}
        }
        run_at.or_else(|| delay.map(|delay| now + delay))
    }

    /// When the job is due again and again, if it is Periodic.
    fn schedule(&mut self, submission: &Submission) -> Option<Schedule> {
        let Submission { cron, timezone, overlap, misfire, schedule_key, .. } = submission;
        if submission.kind != Kind::Periodic {
            let given = [
                ("cron_spec", cron.is_some()),
                ("timezone", timezone.is_some()),
                ("overlap", overlap.is_some()),
                ("misfire", misfire.is_some()),
                ("schedule_key", schedule_key.is_some()),
            ];
            for (field, _) in given.into_iter().filter(|(_, given)| *given) {
                let remedy = "make its kind Periodic, or leave it out";
                self.say(&format!("metadata.{field}"), "only a Periodic job has it", remedy);
            }
            return None;
        }
        for (field, given) in [("schedule_delay", submission.delay.is_some()), ("run_at", submission.run_at.is_some())]
        {
            if given {
                let remedy = "say it with cron_spec, or make its kind Scheduled";
                self.say(&format!("metadata.{field}"), "a Periodic job runs by its cron_spec", remedy);
            }
        }
        if submission.idempotency_key.is_some() {
            let remedy = "give a schedule_key: it makes the submission safe to repeat for good";
            self.say("metadata.idempotency_key", "a Periodic job has none", remedy);
        }
        if submission.upstream.is_some() {
            self.say("upstream", "a job cannot launch a Periodic job as its execution", "submit it beside the job");
        }
        self.check_key("metadata.schedule_key", schedule_key.as_deref());
        let Some(cron) = cron else {
            let remedy = "give six fields with the seconds first, five without, or @daily, @every 90s, ..";
            self.say("metadata.cron_spec", "a Periodic job needs to know when", remedy);
            return None;
        };
        match Schedule::parse(cron, timezone.as_deref().unwrap_or_default()) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                let is_zone = timezone.is_some() && error.field == Some("time zone");
                let field = if is_zone { "metadata.timezone" } else { "metadata.cron_spec" };
                let part = error.field.filter(|_| !is_zone).map_or_else(String::new, |part| format!("{part}: "));
                self.say(field, format!("{part}{}", error.problem), error.remedy);
                None
            }
        }
    }

    fn check_limits(&mut self, submission: &Submission) {
        if let Some(priority) = submission.priority
            && priority > limits::PRIORITY_MAX
        {
            let problem = format!("is {priority}");
            self.say("metadata.priority", problem, format!("give 0 to {}, higher first", limits::PRIORITY_MAX));
        }
        if let Some(max_fails) = submission.max_fails
            && max_fails > limits::MAX_FAILS_MAX
        {
            let remedy = format!("give at most {}, or 0 for the default", limits::MAX_FAILS_MAX);
            self.say("metadata.max_fails", format!("is {max_fails}"), remedy);
        }
        if let Some(timeout) = submission.timeout
            && (timeout < Duration::from_millis(1) || timeout > limits::TIMEOUT_MAX)
        {
            let remedy = format!("give more than 0 and at most {} seconds", limits::TIMEOUT_MAX.as_secs());
            self.say("metadata.timeout", format!("is {} s", timeout.as_secs_f64()), remedy);
        }
        self.check_key("metadata.unique_key", submission.unique_key.as_deref());
        self.check_key("metadata.idempotency_key", submission.idempotency_key.as_deref());
        if submission.tags.len() > limits::TAGS_MAX {
            let problem = format!("has {} entries", submission.tags.len());
            self.say("metadata.tags", problem, format!("give at most {}", limits::TAGS_MAX));
        }
        if submission.tags.iter().any(|tag| tag.is_empty() || tag.len() > limits::TAG_BYTES_MAX) {
            let remedy = format!("give tags of 1 to {} bytes", limits::TAG_BYTES_MAX);
            self.say("metadata.tags", "has a tag that is empty or too long", remedy);
        }
    }

    fn check_key(&mut self, field: &str, key: Option<&str>) {
        if key.is_some_and(|key| key.is_empty() || key.len() > limits::KEY_BYTES_MAX) {
            let remedy = format!("give 1 to {} bytes, or leave it out", limits::KEY_BYTES_MAX);
            self.say(field, "is empty or too long", remedy);
        }
    }
}
