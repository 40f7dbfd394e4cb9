//! Who gets a place, who waits, and who is left alone.

use super::*;

const START: Time = Time::from_seconds(1_000_000);
const TOOK: Duration = Duration::from_millis(10);

struct Table {
    hosts: Hosts<()>,
    now: Time,
    number: u32,
}

impl Table {
    fn new(places: usize, per_host: usize) -> Table {
        Table { hosts: Hosts::new(places, per_host), now: START, number: 0 }
    }

    fn place(&mut self, host: &str) -> Option<Duration> {
        self.number += 1;
        let id = JobId::new(format!("job-{:08}", self.number)).unwrap();
        let placed = self.hosts.place(Work { id, host: host.into(), what: () }, 0, self.now);
        placed.err().map(|(_, at)| at.since(self.now))
    }

    /// Begins all that may begin; answers with their hosts.
    fn begin(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.hosts.next()).map(|work| work.host.to_string()).collect()
    }

    fn ended(&mut self, host: &str, sign: Sign) -> usize {
        self.hosts.ended(host, sign, TOOK, 0, self.now).len()
    }

    fn once(&mut self, host: &str, sign: Sign) {
        assert_eq!(self.place(host), None, "{host} has a place in its queue");
        assert_eq!(self.begin(), [host]);
        self.now = self.now + TOOK;
        self.ended(host, sign);
    }

    /// The first of two failures less than it takes to be taken for dead.
    fn nearly_dies(&mut self, host: &str) {
        for _ in 1..FAILURES_MAX {
            self.once(host, ILL);
        }
        self.now = self.now + FAILING_MIN;
    }
}

const ILL: Sign = Sign::Ill { asked: None };

#[test]
fn host_gets_its_places_and_no_more() {
    let mut table = Table::new(64, 3);
    for _ in 0..5 {
        table.place("a");
    }
    table.place("b");
    assert_eq!(table.begin(), ["a", "b", "a", "a"], "in turns");
    table.ended("a", Sign::Well);
    assert_eq!(table.begin(), ["a"]);
}

#[test]
fn all_hosts_together_get_no_more_than_all_places() {
    let mut table = Table::new(4, 4);
    table.once("a", Sign::Well);
    table.once("b", Sign::Well);
    for _ in 0..4 {
        table.place("a");
        table.place("b");
    }
    assert_eq!(table.begin().len(), 4);
}

#[test]
fn what_does_not_fit_goes_back_for_as_long_as_the_queue_takes() {
    let mut table = Table::new(64, 2);
    let mut back: Vec<Duration> = (0..500).filter_map(|_| table.place("a")).collect();

    assert_eq!(back.len(), 500 - 2 * WAITING_PER_PLACE);
    assert!(back.is_sorted() && back[0] >= BACK_MIN && *back.last().unwrap() <= BACK_MAX, "{back:?}");
    back.dedup();
    assert!(back.len() > 100, "they do not come back together");
    assert_eq!(table.place("b"), None, "another host has room");
}

#[test]
fn dead_host_is_left_alone_but_for_a_probe_each_minute() {
    let mut table = Table::new(64, 8);
    table.nearly_dies("dead");
    table.once("dead", ILL);
    assert!(table.place("dead").unwrap() >= PROBE_EVERY);
    table.now = table.now + PROBE_EVERY;

    table.once("dead", ILL);
    assert!(table.place("dead").unwrap() >= PROBE_EVERY, "the probe failed");
    table.now = table.now + PROBE_EVERY;
    assert_eq!(table.place("dead"), None);
    assert!(table.place("dead").is_some(), "one probe at a time");
    assert_eq!(table.begin(), ["dead"]);
    table.ended("dead", Sign::Well);

    assert_eq!((table.place("dead"), table.place("dead")), (None, None), "it lives");
}

#[test]
fn success_begins_the_count_anew() {
    let mut table = Table::new(64, 8);
    for _ in 0..3 {
        table.nearly_dies("flaky");
        table.once("flaky", Sign::Well);
    }
    assert_eq!(table.place("flaky"), None);
}

/// A receiver that answers most at once and leaves some hanging: those end together, with no success between them.
#[test]
fn time_outs_that_began_before_the_last_success_are_no_row() {
    let mut table = Table::new(64, 64);
    for _ in 0..40 {
        table.place("flaky");
    }
    let sending = table.begin().len();
    assert!(sending > FAILURES_MAX as usize);
    table.ended("flaky", Sign::Well);
    table.now = table.now + FAILING_MIN;

    for _ in 1..sending {
        table.hosts.ended("flaky", ILL, FAILING_MIN * 2, 0, table.now);
    }

    assert_eq!((table.place("flaky"), table.hosts.known["flaky"].proven), (None, true));
}

#[test]
fn receiver_that_starts_again_is_not_taken_for_dead() {
    let mut table = Table::new(64, 8);
    for _ in 0..FAILURES_MAX * 2 {
        table.once("restarting", ILL);
    }
    assert_eq!(table.place("restarting"), None);
}

#[test]
fn what_waits_for_a_host_goes_back_when_it_is_found_dead() {
    let mut table = Table::new(64, 1);
    table.nearly_dies("dead");
    for _ in 0..4 {
        table.place("dead");
    }
    table.begin();

    assert_eq!(table.ended("dead", ILL), 3);
    assert_eq!((table.hosts.room(), table.begin().len()), (WAITING_MAX, 0));
}

#[test]
fn host_that_asks_for_a_pause_gets_it_within_bounds() {
    let mut table = Table::new(64, 8);
    table.once("busy", Sign::Ill { asked: Some(Duration::from_secs(7)) });
    assert_eq!(table.place("busy"), Some(Duration::from_secs(7)));
    table.now = table.now + Duration::from_secs(7);
    table.once("busy", Sign::Ill { asked: Some(Duration::from_secs(3600)) });
    assert_eq!(table.place("busy"), Some(PAUSE_MAX));
}

/// Goal: any number of dead hosts leaves half of everything to those that answer.
#[test]
fn hosts_that_do_not_answer_share_half_of_places_and_queue() {
    let mut table = Table::new(10, 4);
    table.once("good", Sign::Well);
    for number in 0..1000 {
        table.place(&format!("dead-{number}"));
    }
    assert_eq!(table.begin().len(), 5);

    for _ in 0..4 {
        assert_eq!(table.place("good"), None);
    }
    assert_eq!(table.begin(), ["good"; 4]);
}

#[test]
fn numbers_add_up_whatever_happens() {
    let mut table = Table::new(6, 2);
    let mut sending: Vec<String> = Vec::new();
    let mut random = 12345_u32;
    for _ in 0..20_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let host = format!("h{}", (random >> 8) % 5);
        if random.is_multiple_of(2) {
            table.place(&host);
        }
        sending.extend(table.begin());
        if (random >> 16).is_multiple_of(3) && !sending.is_empty() {
            let host = sending.swap_remove((random >> 20) as usize % sending.len());
            let sign = [Sign::Well, ILL, Sign::None, Sign::Ill { asked: Some(Duration::from_secs(1)) }]
                [(random >> 24) as usize % 4];
            table.ended(&host, sign);
        }
        table.now = table.now + Duration::from_millis(u64::from(random >> 22));
        assert_eq!(table.hosts.sending, sending.len());
        let all = || table.hosts.known.values();
        assert_eq!(table.hosts.waiting, all().map(|host| host.waiting.len()).sum::<usize>());
        let doubtful = || all().filter(|host| !host.proven);
        assert_eq!(table.hosts.waiting_doubtful, doubtful().map(|host| host.waiting.len()).sum::<usize>());
        assert_eq!(table.hosts.sending_doubtful, doubtful().map(|host| host.sending).sum::<usize>());
        assert_eq!(table.hosts.turns.len(), all().filter(|host| !host.waiting.is_empty()).count());
    }
}

#[test]
fn forgotten_hosts_are_those_that_nothing_goes_on_with() {
    let mut table = Table::new(64, 1);
    table.place("busy");
    table.begin();
    for number in 0..HOSTS_MAX + 10 {
        let host = format!("h{number}");
        table.place(&host);
        table.hosts.drain();
        table.now = table.now + Duration::from_millis(1);
    }
    assert!(table.hosts.known.len() <= HOSTS_MAX && table.hosts.known.contains_key("busy"));
}
