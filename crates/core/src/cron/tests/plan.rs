//! What a policy that is due asks for.

use super::*;
use crate::job::{Retention, Signal};
use crate::policy::{Firing, Misfire, Overlap, Policy, PolicySpec, decide_fire};
use crate::{JobId, Name};

fn policy(cron: &str, misfire: Misfire, due: Time) -> Policy {
    let spec = PolicySpec {
        schedule_key: None,
        name: Name::new("clean").unwrap(),
        parameters: "{}".into(),
        cron: cron.into(),
        timezone: "UTC".into(),
        misfire,
        overlap: Overlap::Allow,
        priority: 0,
        max_fails: 4,
        timeout: None,
        hook: None,
        unique: None,
        unique_key: None,
        tags: Vec::new(),
        retention: Retention::default(),
    };
    let id = JobId::new("01980000-0000-7000-8000-000000000001").unwrap();
    Policy::submitted(id, spec, Some(due), due - Duration::from_secs(1))
}

/// The plan as (executions, skipped, next due).
fn plan(cron: &str, misfire: Misfire, due: &str, now: &str) -> (usize, u64, Time) {
    let policy = policy(cron, misfire, at(due));
    let tick = plan_tick(&policy, &schedule(cron, "UTC"), at(now)).expect("a tick");
    assert_eq!(tick.expected_due, at(due));
    (tick.executions, tick.skipped, tick.next_due.unwrap())
}

const ALL_RULES: [Misfire; 3] = [Misfire::Skip, Misfire::Last, Misfire::All];

#[test]
fn tick_that_is_fired_in_time_has_one_execution_whatever_the_rule() {
    for misfire in ALL_RULES {
        for now in ["2026-01-05T12:00:00", "2026-01-05T12:00:00.250", "2026-01-05T12:00:59.999"] {
            let plan = plan("0 * * * *", misfire, "2026-01-05T12:00:00", now);
            assert_eq!(plan, (1, 0, at("2026-01-05T13:00:00")), "{misfire:?} at {now}");
        }
    }
}

#[test]
fn outage_of_an_hour_of_a_job_of_each_minute() {
    let plan = |misfire| plan("* * * * *", misfire, "2026-01-05T12:00:00", "2026-01-05T13:00:10");
    let next = at("2026-01-05T13:01:00");

    assert_eq!(plan(Misfire::Skip), (1, 60, next), "the tick of 13:00 is in time");
    assert_eq!(plan(Misfire::Last), (1, 60, next));
    assert_eq!(plan(Misfire::All), (61, 0, next));
}

#[test]
fn nightly_job_that_was_missed_while_the_service_was_down() {
    let plan = |misfire| plan("0 2 * * *", misfire, "2026-01-03T02:00:00", "2026-01-05T10:00:00");
    let next = at("2026-01-06T02:00:00");

    assert_eq!(plan(Misfire::Skip), (0, 3, next), "nobody gets last night's run at ten");
    assert_eq!(plan(Misfire::Last), (1, 2, next));
    assert_eq!(plan(Misfire::All), (3, 0, next));
}

#[test]
fn catching_up_is_bounded_and_keeps_the_latest() {
    let (executions, skipped, next) = plan("* * * * *", Misfire::All, "2026-01-01T00:00:00", "2026-01-02T00:00:30");

    assert_eq!((executions, skipped), (100, 1441 - 100));
    assert_eq!(next, at("2026-01-02T00:01:00"));
}

#[test]
fn long_outage_of_a_fast_policy_costs_bounded_work() {
    for misfire in ALL_RULES {
        let (executions, skipped, next) =
            plan("* * * * * *", misfire, "2020-01-01T00:00:00", "2026-01-05T12:00:00.500");
        assert_eq!(executions as u64 + skipped, 10_001);
        assert_eq!(next, at("2026-01-05T12:00:01"));
        assert!(executions >= 1, "the tick of this second is in time");
    }
}

/// The edge belongs to the ticks in time, for an `@every` as for any other.
#[test]
fn tick_counts_as_missed_when_it_is_later_than_a_minute() {
    for cron in ["@every 90s", "*/2 * * * *"] {
        let executions = |now| plan(cron, Misfire::Skip, "2026-01-05T12:00:00", now).0;
        assert_eq!(executions("2026-01-05T12:01:00"), 1, "{cron}");
        assert_eq!(executions("2026-01-05T12:01:00.001"), 0, "{cron}");
    }
}

#[test]
fn every_keeps_its_pace_over_an_outage() {
    let (executions, skipped, next) = plan("@every 90s", Misfire::Last, "2026-01-05T12:00:10", "2026-01-05T12:05:00");

    // 12:00:10, 12:01:40, 12:03:10, 12:04:40 have come; 12:06:10 is next.
    assert_eq!((executions, skipped, next), (1, 3, at("2026-01-05T12:06:10")));
}

#[test]
fn plan_made_at_the_very_instant_of_the_next_tick_counts_it() {
    let plan = plan("* * * * *", Misfire::All, "2026-01-05T12:00:00", "2026-01-05T12:01:00");
    assert_eq!(plan, (2, 0, at("2026-01-05T12:02:00")));
}

#[test]
fn policy_that_is_not_due_paused_or_ended_has_no_tick() {
    let hourly = schedule("@hourly", "");
    let due = at("2026-01-05T12:00:00");
    let ready = policy("@hourly", Misfire::Last, due);
    assert_eq!(plan_tick(&ready, &hourly, due - Duration::from_millis(1)), None);
    assert!(plan_tick(&ready, &hourly, due).is_some());

    let mut paused = ready.clone();
    paused.state.paused = true;
    assert_eq!(plan_tick(&paused, &hourly, due), None);
    let mut ended = ready.clone();
    ended.state.ended = Some(Signal::Stop);
    assert_eq!(plan_tick(&ended, &hourly, due), None);
    let mut without = ready;
    without.state.next_due = None;
    assert_eq!(plan_tick(&without, &hourly, due), None);
}

#[test]
fn ticks_are_those_of_the_zone() {
    let due = at("2026-03-29T01:00:00"); // 03:00 in Berlin, for 02:30 was skipped
    let policy = policy("30 2 * * *", Misfire::Last, due);
    let tick = plan_tick(&policy, &schedule("30 2 * * *", "Europe/Berlin"), due).unwrap();
    assert_eq!(tick.next_due, Some(at("2026-03-30T00:30:00")));
}

/// Goal: at whatever times nodes look, each tick is fired or counted once. Method: a virtual day with looks at uneven
/// times and outages; executions and skipped ticks add up to the ticks of the day.
#[test]
fn each_tick_is_fired_or_counted_once() {
    let text = "*/10 * * * *";
    let schedule = schedule(text, "");
    for misfire in ALL_RULES {
        let mut policy = policy(text, misfire, at("2026-01-05T00:00:00"));
        let mut now = at("2026-01-05T00:00:00");
        let end = at("2026-01-06T00:00:00");
        let (mut executions, mut looks) = (0, 0_u64);
        while now < end {
            if let Some(tick) = plan_tick(&policy, &schedule, now) {
                let (Firing::Fire { state, .. } | Firing::Skip(state)) = decide_fire(&policy, &tick, 0, now) else {
                    panic!("{tick:?} does not fire");
                };
                executions += tick.executions;
                policy.state = state;
                assert_eq!(decide_fire(&policy, &tick, 0, now), Firing::Stale, "it fires once");
                assert!(tick.next_due > Some(now), "nobody catches up for ever");
            }
            looks += 1;
            // Mostly every few seconds; each 97th look comes after an outage.
            let pause = if looks.is_multiple_of(97) { 3600 + looks * 13 % 5000 } else { 1 + looks * 7 % 11 };
            now = now + Duration::from_secs(pause);
        }
        let ticks = schedule.upcoming(at("2026-01-04T23:59:59")).take_while(|tick| Some(*tick) < policy.state.next_due);
        assert_eq!(policy.state.skipped + executions as u64, ticks.count() as u64, "{misfire:?}");
        let skipped = policy.state.skipped;
        assert_eq!(skipped == 0, misfire == Misfire::All, "{misfire:?}: {skipped}");
    }
}
