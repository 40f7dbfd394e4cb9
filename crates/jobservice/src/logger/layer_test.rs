use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry;

use super::bench_test::LogBench;
use super::{in_current_scope, layer, scope, scope_sync};

#[derive(Debug, thiserror::Error)]
#[error("disk is full")]
struct DiskFull(#[source] std::io::Error);

#[tokio::test]
async fn events_inside_a_job_go_to_its_log_and_others_nowhere() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    let (other, _) = t.run().await;
    let subscriber = registry().with(layer());
    let guard = tracing::subscriber::set_default(subscriber);

    tracing::error!("outside");
    scope(log.clone(), async {
        tracing::info!(size = 12, target = "a b", "copied {}", "image");
        tokio::task::yield_now().await;
        tracing::trace!("too fine");
        tracing::debug!(only = "a field");
        let error = DiskFull(std::io::ErrorKind::StorageFull.into());
        tracing::error!(error = &error as &dyn std::error::Error, "two\nlines");
    })
    .await;
    scope_sync(log.clone(), || tracing::warn!("blocking"));
    tracing::info!("outside again");
    drop(guard);
    log.close().await;

    let text = t.kept.text(&lease.id);
    let lines: Vec<&str> =
        text.lines().skip(1).map(|line| line.split_once(' ').map_or(line, |(_, rest)| rest)).collect();
    assert_eq!(
        lines,
        [
            "[INFO] copied image size=12 target=\"a b\"",
            "[DEBUG] only=\"a field\"",
            "[ERROR] two",
            "   lines error=disk is full: no storage space",
            "[WARNING] blocking",
        ]
    );
    assert_eq!(t.kept.text(&other.id), "");
}

#[tokio::test]
async fn spawned_work_stays_in_the_job_if_it_is_taken_along() {
    let t = LogBench::new().await;
    let (lease, log) = t.run().await;
    let _guard = tracing::subscriber::set_default(registry().with(layer()));
    scope(log.clone(), async {
        let inside = tokio::spawn(in_current_scope(async { tracing::info!("taken along") }));
        let outside = tokio::spawn(async { tracing::info!("left alone") });
        inside.await.unwrap();
        outside.await.unwrap();
    })
    .await;
    log.close().await;
    let text = t.kept.text(&lease.id);
    assert!(text.contains("taken along") && !text.contains("left alone"), "{text}");
}

#[tokio::test]
async fn jobs_on_one_thread_do_not_write_to_each_others_logs() {
    let t = LogBench::new().await;
    let (one, one_log) = t.run().await;
    let (two, two_log) = t.run().await;
    let _guard = tracing::subscriber::set_default(registry().with(layer()));
    let work = |log: super::JobLog, name: &'static str| {
        scope(log, async move {
            for _ in 0..10 {
                tracing::info!("I am {name}");
                tokio::task::yield_now().await;
            }
        })
    };
    tokio::join!(work(one_log.clone(), "one"), work(two_log.clone(), "two"));
    one_log.close().await;
    two_log.close().await;
    assert_eq!(t.kept.text(&one.id).matches("I am one").count(), 10);
    assert_eq!(t.kept.text(&two.id).matches("I am two").count(), 10);
    assert!(!t.kept.text(&one.id).contains("two"));
}
