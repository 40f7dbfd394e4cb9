//! One caller after the other: the operations of the model test.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jobservice_core::store::Store;

use super::{Noted, Work};
use crate::model::op::Op;
use crate::model::{Model, Reached};

/// Operations of one child.
const OPERATIONS: usize = 150;

/// Operations after the crash, to see that life goes on.
const MORE: usize = 30;

const ANSWERS: &str = "answers";

pub(super) struct Sequence;

/// The operation as one call: a prune with a limit would be several, and a crash may come between them.
fn as_one_call(op: Op) -> Op {
    if let Op::Prune(_) = op { Op::Prune(usize::MAX) } else { op }
}

#[async_trait]
impl Work for Sequence {
    async fn work(&self, store: Arc<dyn Store>, dir: &Path, seed: u64) {
        let mut noted = Noted::open(&dir.join(ANSWERS));
        let mut model = Model::new(seed).await;
        for _ in 0..OPERATIONS {
            let now = model.now();
            let (op, expected) = model.step(&mut Reached::default()).await;
            let found = as_one_call(op).ask(&store, now).await.expect("the store answers");
            assert!(found.agrees(&expected), "the child's store is not as the reference");
            noted.note();
        }
    }

    async fn check(&self, store: Arc<dyn Store>, dir: &Path, seed: u64) -> Result<(), String> {
        let answered = Noted::count(&dir.join(ANSWERS));
        let mut model = Model::new(seed).await;
        for _ in 0..answered {
            model.step(&mut Reached::default()).await;
        }
        let found = store.dump().await.map_err(|error| error.to_string())?;
        let before = model.reference.dump().await.map_err(|error| error.to_string())?;
        if found != before {
            let (op, _) = model.step(&mut Reached::default()).await;
            let after = model.reference.dump().await.map_err(|error| error.to_string())?;
            if found != after {
                let missing = crate::dump::difference(&before, &found);
                return Err(format!("{answered} operations were answered, then came {op:?}; {missing}"));
            }
        }
        for _ in 0..MORE {
            let now = model.now();
            let (op, expected) = model.step(&mut Reached::default()).await;
            let found = op.ask(&store, now).await.map_err(|error| error.to_string())?;
            if !found.agrees(&expected) {
                return Err(format!("after the crash {op:?} is answered {found:?} instead of {expected:?}"));
            }
        }
        crate::dump::compare(&model.reference, &store).await
    }
}
