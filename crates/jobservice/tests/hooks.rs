//! Status hooks as their receivers see them: what comes, in which order, how often, and where nothing ever comes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a panic is how a test speaks")]

mod common;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Bench, CAP, tick};
use jobservice::core::job::Status;
use jobservice::core::outbox::{Delivery, OutboxEntry, Resent};
use jobservice::core::{Clock, JobId, ManualClock, Store, SystemClock};
use jobservice::hooks::{AddressPolicy, HookOptions, Resolver, Secret, sign};
use jobservice::prelude::*;
use jobservice::testing::MemoryStore;
use jobservice::{Submission, SubmitError};
use jobservice_conformance::faulty::{Faulty, Rates};
use jobservice_conformance::receiver::{Message, Receiver, Reply, until};
use serde::{Deserialize, Serialize};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Checks in once.
#[derive(Serialize, Deserialize)]
struct Talk {}

impl Job for Talk {
    const NAME: &'static str = "talk";

    async fn run(self, ctx: Context) -> Result<(), Failure> {
        ctx.check_in("50%").await?;
        Ok(())
    }
}

fn options() -> HookOptions {
    HookOptions {
        policy: Arc::new(AddressPolicy::with_loopback()),
        secrets: vec![Secret::parse(SECRET).unwrap()],
        ..HookOptions::default()
    }
}

async fn start(options: HookOptions) -> Bench {
    Bench::start(|builder| builder.register::<Talk>().hooks(options)).await
}

async fn submit(t: &Bench, url: impl Into<String>) -> JobId {
    t.service.submit(Talk {}).hook(url).await.unwrap().id().clone()
}

/// Lets time pass, a little at a time, until `is`.
async fn pass_until(t: &Bench, what: &str, is: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if is() {
            return;
        }
        t.clock.advance(Duration::from_millis(500));
        tick().await; // bounded poll
    }
    panic!("never {what}: {}", t.store.dump().await.unwrap());
}

fn seqs(messages: &[Message]) -> Vec<u32> {
    messages.iter().map(|message| message.event().1).collect()
}

async fn deliveries(t: &Bench, id: &JobId) -> Vec<(u32, Delivery)> {
    let events = t.service.controller().events(id).await.unwrap();
    events.iter().map(|entry| (entry.event.seq, entry.delivery)).collect()
}

/// Waits until no event of the job waits.
async fn settled(t: &Bench, id: &JobId) {
    let began = tokio::time::Instant::now();
    while deliveries(t, id).await.iter().any(|(_, delivery)| *delivery == Delivery::Waiting) {
        assert!(began.elapsed() < CAP, "{}", t.store.dump().await.unwrap());
        tick().await; // bounded poll
    }
}

#[tokio::test]
async fn each_change_is_told_in_order_signed_and_in_the_original_form() {
    let receiver = Receiver::start(|_| Reply::Status(204)).await;
    let t = start(options()).await;

    let id = submit(&t, receiver.url("/hook?x=1")).await;

    until("three messages", || receiver.count() == 3).await;
    let messages = receiver.messages();
    let told: Vec<_> = messages.iter().map(Message::json).collect();
    let told: Vec<_> = told.iter().map(|json| (json["status"].as_str(), json["check_in"].as_str())).collect();
    assert_eq!(told, [(Some("running"), None), (Some("running"), Some("50%")), (Some("success"), None)]);
    for message in &messages {
        let header = |name: &str| message.header(name);
        assert_eq!((message.path.as_str(), header("content-type")), ("/hook?x=1", "application/json"));
        assert!(header("user-agent").starts_with("jobservice/"));
        assert!(!message.headers.contains_key("authorization"));
        let secret = Secret::parse(SECRET).unwrap();
        let (timestamp, signature) = (header("webhook-timestamp"), header("webhook-signature"));
        sign::verify(&secret, message.id(), timestamp, signature, &message.body, t.clock.now()).unwrap();
        let json = message.json();
        assert_eq!((json["job_id"].as_str(), json["metadata"]["name"].as_str()), (Some(id.as_str()), Some("talk")));
        assert!(json["metadata"].get("parameters").is_none());
    }
    assert_eq!(messages.iter().map(Message::event).collect::<Vec<_>>(), [1, 2, 3].map(|seq| (id.as_str(), seq)));
    settled(&t, &id).await;
    t.end().await;
}

#[tokio::test]
async fn failed_delivery_is_tried_again_at_its_time_under_the_same_id_and_before_what_follows() {
    let tried = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match tried.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Status(500),
        1 => Reply::Reset,
        2 => Reply::Status(404),
        _ => Reply::Status(200),
    })
    .await;
    let t = start(options()).await;
    let id = submit(&t, receiver.url("/")).await;
    until("the first try", || receiver.count() == 1).await;
    t.until_status(&id, Status::Success).await;
    loop {
        let first = t.service.controller().events(&id).await.unwrap()[0].clone();
        if first.tries == 1 {
            assert_eq!(first.error.as_deref(), Some("answered 500"));
            let pause = first.next_at.since(t.clock.now());
            assert!(pause >= Duration::from_millis(1600) && pause <= Duration::from_millis(2400), "{pause:?}");
            break;
        }
        tick().await; // bounded poll
    }
    for _ in 0..20 {
        tick().await; // bounded poll
    }
    assert_eq!(receiver.count(), 1, "not before its time");

    pass_until(&t, "delivered", || receiver.messages().iter().filter(|message| message.is_taken).count() == 3).await;

    assert_eq!(seqs(&receiver.messages()), [1, 1, 1, 1, 2, 3]);
    settled(&t, &id).await;
    let events = t.service.controller().events(&id).await.unwrap();
    assert_eq!((events[0].tries, events[0].error.as_deref()), (3, Some("answered 404")));
    t.end().await;
}

#[tokio::test]
async fn receiver_that_is_gone_is_asked_no_more_for_that_job() {
    let receiver = Receiver::start(|message| Reply::Status(if message.path == "/gone" { 410 } else { 200 })).await;
    let t = start(options()).await;

    let gone = submit(&t, receiver.url("/gone")).await;
    t.until_final(&gone).await;
    settled(&t, &gone).await;
    let other = submit(&t, receiver.url("/here")).await;
    t.until_final(&other).await;
    settled(&t, &other).await;

    let asked: Vec<_> = receiver.messages().iter().map(|message| message.path.clone()).collect();
    assert_eq!(asked, ["/gone", "/here", "/here", "/here"]);
    assert!(deliveries(&t, &gone).await.iter().all(|(_, delivery)| *delivery == Delivery::Gone));
    assert_eq!(t.service.controller().resend_event(&gone, 3).await.unwrap(), Resent::Done);
    until("it is asked again", || receiver.count() == 5).await;
    t.end().await;
}

#[tokio::test]
async fn receiver_may_ask_for_time() {
    let tried = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| match tried.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::With(429, "retry-after: 40\r\n".to_owned()),
        _ => Reply::Status(200),
    })
    .await;
    let t = start(options()).await;
    let id = submit(&t, receiver.url("/")).await;
    let asked_at = t.clock.now();
    until("the first try", || receiver.count() == 1).await;

    pass_until(&t, "tried again", || receiver.count() > 1).await;

    let waited = t.clock.now().since(asked_at);
    assert!(waited >= Duration::from_secs(40), "{waited:?}");
    t.until_final(&id).await;
    pass_until(&t, "all", || receiver.count() == 4).await;
    t.end().await;
}

#[tokio::test]
async fn event_is_sent_again_on_demand() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let t = start(options()).await;
    let id = submit(&t, receiver.url("/")).await;
    t.until_final(&id).await;
    settled(&t, &id).await;

    assert_eq!(t.service.controller().resend_event(&id, 2).await.unwrap(), Resent::Done);

    until("it came again", || receiver.count() == 4).await;
    let messages = receiver.messages();
    assert_eq!(seqs(&messages), [1, 2, 3, 2]);
    assert_eq!((messages[1].id(), &messages[1].body), (messages[3].id(), &messages[3].body));
    t.end().await;
}

#[tokio::test]
async fn lost_answers_of_the_store_lose_no_event_and_no_order() {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::new()), Rates::default(), 7));
    for verb in ["take_events", "settle_event"] {
        faulty.set_rates_of(verb, Rates::HARSH);
    }
    let store = Arc::clone(&faulty) as Arc<dyn Store>;
    let t =
        Bench::on(store, Arc::new(ManualClock::default()), |builder| builder.register::<Talk>().hooks(options())).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(submit(&t, receiver.url("/")).await);
    }
    for id in &ids {
        t.until_final(id).await;
    }

    let arrived = |id: &JobId| {
        let messages = receiver.messages();
        let of: Vec<u32> =
            messages.iter().map(Message::event).filter(|of| of.0 == id.as_str()).map(|of| of.1).collect();
        let mut first = of.clone();
        first.dedup();
        let mut seen = Vec::new();
        first.retain(|seq| {
            !seen.contains(seq) && {
                seen.push(*seq);
                true
            }
        });
        first
    };
    pass_until(&t, "all arrived", || ids.iter().all(|id| arrived(id) == [1, 2, 3])).await;
    assert!(faulty.faults().0 > 0);
    faulty.set_rates(Rates::default());
    t.end().await;
}

/// Goal: no form of a forbidden address is ever connected to, also if its URL is in the store already.
#[tokio::test]
async fn forbidden_listener_is_never_connected_to() {
    let forbidden = Receiver::start(|_| Reply::Status(200)).await;
    let port = forbidden.address().port();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0x7F.1",
        "0177.0x0.1",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "１２７.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "0",
        "[::]",
        "user@127.0.0.1",
        "127.0.0.1#@example.com",
        "127.0.0.1\\@example.com",
        "example.com@127.0.0.1",
    ];
    let t = start(HookOptions::default()).await;
    let mut ids = Vec::new();
    for host in hosts {
        for url in [format!("http://{host}:{port}/"), format!("https://{host}:{port}/")] {
            let mut submission = Submission::new("talk");
            submission.hook = Some(url.clone());
            let refused = t.service.controller().submit(submission).await;
            assert!(
                matches!(&refused, Err(SubmitError::Invalid(bad)) if bad[0].field == "status_hook"),
                "{url}: {refused:?}"
            );
            // As if the policy had been another one then.
            let mut job = t.service.submit(Talk {}).after(Duration::from_secs(5)).await.unwrap().job;
            job.id = JobId::generate();
            Arc::make_mut(&mut job.spec).hook = Some(url.as_str().into());
            t.store.insert(vec![job.clone().into()], t.clock.now()).await.unwrap();
            ids.push(job.id);
        }
    }
    t.pass(Duration::from_secs(6)).await;
    for id in &ids {
        t.until_final(id).await;
    }
    for _ in 0..60 {
        t.clock.advance(Duration::from_secs(1));
        tick().await; // bounded poll
    }

    for id in &ids {
        let first = t.service.controller().events(id).await.unwrap()[0].clone();
        assert!(first.tries > 0 && first.delivery == Delivery::Waiting, "{first:?}");
    }
    assert_eq!(forbidden.connections(), 0);
    t.end().await;
}

#[tokio::test]
async fn redirect_is_a_failure_and_never_followed() {
    let forbidden = Receiver::start(|_| Reply::Status(200)).await;
    let location = format!("location: {}\r\n", forbidden.url("/"));
    let statuses = [301, 302, 303, 307, 308];
    let tried = AtomicUsize::new(0);
    let receiver = Receiver::start(move |_| {
        Reply::With(statuses[tried.fetch_add(1, Ordering::SeqCst) % statuses.len()], location.clone())
    })
    .await;
    let t = start(options()).await;
    let id = submit(&t, receiver.url("/")).await;

    pass_until(&t, "tried", || receiver.count() >= statuses.len()).await;

    let failure = t.service.controller().events(&id).await.unwrap()[0].error.clone().unwrap();
    assert!(failure.contains("redirects are not followed"), "{failure}");
    assert_eq!(forbidden.connections(), 0);
    t.end().await;
}

/// A resolver whose first answer is harmless.
struct Rebinding {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

#[async_trait::async_trait]
impl Resolver for Rebinding {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[asked.min(self.answers.len() - 1)].clone())
    }
}

/// Goal: what is checked is what is connected to. Method: a name that leads to the allowed receiver first, then to it and
/// the forbidden one, then to the forbidden one alone; both listen on the same port.
#[tokio::test]
async fn name_that_is_bound_anew_leads_nowhere() {
    let forbidden = Receiver::start(|_| Reply::Status(200)).await;
    let at = format!("127.0.0.2:{}", forbidden.address().port());
    let allowed = Receiver::start_on(&at, |_| Reply::With(500, "connection: close\r\n".to_owned())).await;
    let (good, bad): (IpAddr, IpAddr) = ("127.0.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap());
    let resolver =
        Arc::new(Rebinding { answers: vec![vec![good], vec![good, bad], vec![bad]], asked: AtomicUsize::new(0) });
    let mut policy = AddressPolicy::default();
    policy.allow("127.0.0.2").unwrap();
    let t = start(HookOptions { policy: Arc::new(policy), resolver: Arc::clone(&resolver) as _, ..options() }).await;

    let id = submit(&t, format!("http://rebind.example:{}/", forbidden.address().port())).await;
    pass_until(&t, "looked up again and again", || resolver.asked.load(Ordering::SeqCst) >= 5).await;

    assert_eq!((allowed.connections(), forbidden.connections()), (1, 0));
    let failure = t.service.controller().events(&id).await.unwrap()[0].error.clone().unwrap();
    assert!(failure.contains("leads to 127.0.0.1, which is loopback"), "{failure}");
    t.end().await;
}

#[tokio::test]
async fn jobs_with_a_hook_are_refused_where_hooks_are_off() {
    let t = Bench::start(|builder| builder.register::<Talk>().hooks(None)).await;

    let refused = t.service.submit(Talk {}).hook("https://example.com/").await;

    assert!(
        matches!(&refused, Err(SubmitError::Invalid(bad)) if bad[0].problem.starts_with("status hooks are off")),
        "{refused:?}"
    );
    t.end().await;
}

/// Goal: a dead or slow endpoint harms nobody. Method: a thousand events for a host that never answers and for one that
/// refuses, and a good one that must get each of its events within a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_hosts_do_not_keep_a_good_one_waiting() {
    let silent = Receiver::start(|_| Reply::Hang).await;
    let good = Receiver::start(|_| Reply::Status(200)).await;
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let service = Service::builder()
        .store(Arc::clone(&store))
        .clock(Arc::new(SystemClock::new()) as Arc<dyn Clock>)
        .register::<Talk>()
        .hooks(options())
        .start()
        .await
        .unwrap();
    for number in 0..1000 {
        let url = if number % 2 == 0 { silent.url("/") } else { format!("http://{closed}/") };
        service.submit(Talk {}).hook(url).await.unwrap();
    }
    let mut submitted = Vec::new();
    for _ in 0..300 {
        submitted.push(service.submit(Talk {}).hook(good.url("/")).await.unwrap().id().clone());
        tick().await; // bounded poll
    }
    until("the good one has all", || good.count() == 900).await;

    let mut late: Vec<Duration> = Vec::new();
    let began = tokio::time::Instant::now();
    for id in &submitted {
        // The good one has it before the store is told.
        let entries = loop {
            let entries = service.controller().events(id).await.unwrap();
            if !entries.iter().any(OutboxEntry::is_waiting) || began.elapsed() > CAP {
                break entries;
            }
            tick().await; // bounded poll
        };
        for entry in entries {
            assert_eq!((entry.delivery, entry.tries), (Delivery::Delivered, 0));
            late.push(entry.next_at.since(entry.event.at));
        }
    }
    late.sort();
    let p99 = late[late.len() * 99 / 100];
    println!("{} events, p50 {:?}, p99 {p99:?}, slowest {:?}", late.len(), late[late.len() / 2], late[late.len() - 1]);
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
    assert!(silent.connections() <= 40, "{} connections to a host that never answers", silent.connections());
    let began = tokio::time::Instant::now();
    service.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for it at shutdown: {:?}", began.elapsed());
    assert_eq!(store.audit().await.unwrap(), Vec::<String>::new());
}
