//! Nodes give signs of life: `beat`.

use jobservice_core::limits::{NODE_DEAD_AFTER, NODE_FORGOTTEN_AFTER};
use jobservice_core::store::Node;

use crate::bench::{Bench, name, pool_id, seconds};

super::cases! { $ nodes:
    node_is_listed_as_it_was_given_with_the_time_of_its_beat,
    beat_of_no_node_only_lists,
    later_beat_replaces_the_earlier,
    each_incarnation_is_a_node_of_its_own,
    dead_node_is_listed_until_it_is_forgotten,
}

async fn node_is_listed_as_it_was_given_with_the_time_of_its_beat(t: &Bench) {
    let node = Node { names: vec![name("copy"), name("move")], ..node(t, "web/01") };
    t.advance(seconds(5));

    let nodes = t.store.beat(Some(&node), t.now()).await.unwrap();

    assert_eq!(nodes, [Node { beat_at: t.now(), ..node }]);
}

async fn beat_of_no_node_only_lists(t: &Bench) {
    assert_eq!(t.store.beat(None, t.now()).await.unwrap(), []);
    let node = node(t, "web/01");
    t.store.beat(Some(&node), t.now()).await.unwrap();
    t.advance(seconds(1));

    assert_eq!(t.store.beat(None, t.now()).await.unwrap(), [node]);
}

async fn later_beat_replaces_the_earlier(t: &Bench) {
    let first = node(t, "web/01");
    t.store.beat(Some(&first), t.now()).await.unwrap();
    t.advance(seconds(5));
    let second = Node { concurrency: 99, names: Vec::new(), ..first };

    let nodes = t.store.beat(Some(&second), t.now()).await.unwrap();

    assert_eq!(nodes, [Node { beat_at: t.now(), ..second }]);
}

async fn each_incarnation_is_a_node_of_its_own(t: &Bench) {
    t.store.beat(Some(&node(t, "web/01")), t.now()).await.unwrap();

    let mut nodes = t.store.beat(Some(&node(t, "web/02")), t.now()).await.unwrap();

    nodes.sort_by(|a, b| a.pool.cmp(&b.pool));
    assert_eq!(nodes, [node(t, "web/01"), node(t, "web/02")]);
}

async fn dead_node_is_listed_until_it_is_forgotten(t: &Bench) {
    let empty = t.store.dump().await.unwrap();
    let dead = node(t, "web/01");
    t.store.beat(Some(&dead), t.now()).await.unwrap();
    t.advance(NODE_DEAD_AFTER);
    let nodes = t.store.beat(None, t.now()).await.unwrap();
    assert_eq!((nodes.len(), nodes[0].is_alive(t.now())), (1, false));

    t.advance(NODE_FORGOTTEN_AFTER - NODE_DEAD_AFTER - seconds(1));
    t.prune().await;
    assert_eq!(t.store.beat(None, t.now()).await.unwrap(), [dead]);

    t.advance(seconds(2));
    t.prune().await;
    assert_eq!(t.store.beat(None, t.now()).await.unwrap(), []);
    assert_eq!(t.store.dump().await.unwrap(), empty, "nothing is left of it");
}

fn node(t: &Bench, pool: &str) -> Node {
    Node {
        pool: pool_id(pool),
        started_at: t.now() - seconds(60),
        beat_at: t.now(),
        names: vec![name("copy")],
        concurrency: 10,
        host: "host-ä".to_owned(),
        pid: 4711,
    }
}
