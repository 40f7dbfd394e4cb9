//! What happened when: `minutes`.

use jobservice_core::limits::MINUTES_KEPT;
use jobservice_core::store::{Bucket, Minute};
use jobservice_core::{Name, Time, minutes};

use crate::bench::{Bench, fatal, name, seconds};

super::cases! { $ minutes:
    minutes_tell_what_was_submitted_and_run,
    minutes_of_a_name_are_its_own,
    quiet_minutes_are_left_out,
    minutes_are_kept_for_their_time,
}

async fn minutes_tell_what_was_submitted_and_run(t: &Bench) {
    let begin = whole_minute(t);
    for _ in 0..3 {
        t.job("copy").insert().await;
    }
    t.advance(seconds(2));
    let first = t.run_one("copy").await;
    let second = t.run_one("copy").await;
    let third = t.run_one("copy").await;
    t.advance(seconds(3));
    t.finish_ok(&first).await;
    t.finish(&second, fatal("broken")).await;
    t.release(&third).await;

    let bucket = Bucket { submitted: 3, succeeded: 1, failed: 1, wait_ms: 6000, run_ms: 9000 };
    assert_eq!(all(t, None, begin).await, [Minute { at: begin, bucket }]);

    t.run_one("copy").await;
    t.lose_worker().await;
    assert_eq!(all(t, None, begin).await[0].bucket.failed, 2, "a lost worker is a failed run");
}

async fn minutes_of_a_name_are_its_own(t: &Bench) {
    let begin = whole_minute(t);
    t.job("copy").insert().await;
    t.job("move").insert().await;
    t.job("move").insert().await;

    for (named, submitted) in [(Some("copy"), 1), (Some("move"), 2), (None, 3)] {
        let named = named.map(name);
        let bucket = Bucket { submitted, ..Bucket::default() };
        assert_eq!(all(t, named.as_ref(), begin).await, [Minute { at: begin, bucket }]);
    }
    assert_eq!(all(t, Some(&name("other")), begin).await, []);
}

async fn quiet_minutes_are_left_out(t: &Bench) {
    let begin = whole_minute(t);
    t.job("copy").insert().await;
    t.advance(seconds(180));
    t.job("copy").insert().await;

    let times = async |from| all(t, None, from).await.into_iter().map(|minute| minute.at).collect::<Vec<_>>();
    assert_eq!(times(begin).await, [begin, begin + seconds(180)]);
    assert_eq!(times(begin + seconds(59)).await.len(), 2, "that of the instant is among them");
    assert_eq!(times(begin + seconds(60)).await, [begin + seconds(180)]);
}

async fn minutes_are_kept_for_their_time(t: &Bench) {
    let begin = whole_minute(t);
    t.job("copy").insert().await;
    t.advance(MINUTES_KEPT);
    t.prune().await;
    assert_eq!(all(t, None, begin).await.len(), 1);

    t.advance(seconds(60));
    t.prune().await;

    assert_eq!(all(t, None, begin).await, []);
}

/// Goes to the beginning of a minute.
fn whole_minute(t: &Bench) -> Time {
    let begin = minutes::begin_of(minutes::number_of(t.now()) + 1);
    t.advance(begin.since(t.now()));
    begin
}

async fn all(t: &Bench, name: Option<&Name>, from: Time) -> Vec<Minute> {
    t.store.minutes(name, from).await.unwrap()
}
