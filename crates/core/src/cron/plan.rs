//! What a policy that is due asks for.

use std::collections::VecDeque;

use crate::cron::Schedule;
use crate::policy::{Misfire, Policy, Tick};
use crate::{Time, limits};

/// Works out the tick that `policy` is to fire at `now`: how many executions its misfire rule asks for, how many ticks
/// are passed over, and when it is due next. None if it is not active or not due.
///
/// A policy whose time came and went several times is due once for all of them. All but the last of these ticks are
/// missed; the last is missed if it is later than [`limits::MISFIRE_AFTER`]. With `skip` missed ticks have no execution
/// (none at all, if the last is missed as well), with `last` one execution stands for all, with `all` each has its own,
/// the last [`limits::MISFIRE_ALL_MAX`] of them. The next due time always comes after `now`, so nobody catches up for
/// ever.
///
/// No more than [`limits::MISFIRE_COUNTED_MAX`] ticks are counted: beyond, `skipped` is too low.
///
/// Pure: the same policy at the same time has the same tick, on whatever node.
pub fn plan_tick(policy: &Policy, schedule: &Schedule, now: Time) -> Option<Tick> {
    let due = policy.state.next_due.filter(|due| policy.is_active() && *due <= now)?;
    // Ticks of an `@every` are counted from this one: the pace holds over an outage.
    let ticks = std::iter::successors(schedule.first_after(due, due), |tick| schedule.first_after(due, *tick));
    let later = ticks.take_while(|tick| *tick <= now).take(limits::MISFIRE_COUNTED_MAX).count();
    let ticks = later + 1;
    let executions = match policy.spec.misfire {
        Misfire::Skip => usize::from(last_is_on_time(schedule, due, now)),
        Misfire::Last => 1,
        Misfire::All => ticks.min(limits::MISFIRE_ALL_MAX),
    };
    Some(Tick {
        expected_due: due,
        version: Some(policy.state.version),
        next_due: schedule.first_after(due, now),
        executions,
        skipped: (ticks - executions) as u64,
    })
}

/// The times of the executions of a tick that [`plan_tick`] made at `now`: the last of those that it stands for, in order.
pub fn ticks_of(tick: &Tick, schedule: &Schedule, now: Time) -> Vec<Time> {
    if tick.executions == 1 && tick.skipped == 0 {
        return vec![tick.expected_due];
    }
    let all = std::iter::successors(Some(tick.expected_due), |last| schedule.first_after(tick.expected_due, *last));
    let mut last = VecDeque::with_capacity(tick.executions + 1);
    for at in all.take_while(|at| *at <= now).take(limits::MISFIRE_COUNTED_MAX + 1) {
        last.push_back(at);
        if last.len() > tick.executions {
            last.pop_front();
        }
    }
    last.into()
}

/// Whether there is a tick that has come, and not so long ago that it counts as missed.
fn last_is_on_time(schedule: &Schedule, due: Time, now: Time) -> bool {
    let since = now - limits::MISFIRE_AFTER;
    if due >= since {
        return true;
    }
    // The first tick at or after `since`: ticks are on the second.
    let before = since - std::time::Duration::from_millis(1);
    schedule.first_after(due, before).is_some_and(|tick| tick <= now)
}
