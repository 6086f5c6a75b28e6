//! Which tests run beside which: those that keep to namespaces of their own share the cluster, a few at a time; those that
//! disturb everybody have it alone, and come when nobody shares it any more.
//! It must never depend on how a test ends: a turn is given back when it is dropped, also by a panic.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::support::{announce, attempt, kubectl, leader};

/// How many tests share the cluster at a time: 5, or `WHARF_TEST_PARALLEL`. They wait for pods more than they work.
fn at_a_time() -> usize {
    std::env::var("WHARF_TEST_PARALLEL").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

struct Turns {
    sharing: usize,
    waiting_to_share: usize,
    alone: bool,
}

static TURNS: Mutex<Turns> = Mutex::new(Turns { sharing: 0, waiting_to_share: 0, alone: false });
static CHANGED: Condvar = Condvar::new();

/// A test that failed elsewhere says nothing about the turns.
fn turns() -> MutexGuard<'static, Turns> {
    TURNS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_while(turns: MutexGuard<'static, Turns>, condition: impl Fn(&Turns) -> bool) -> MutexGuard<'static, Turns> {
    CHANGED.wait_while(turns, |turns| condition(turns)).unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The turn of the test on this thread: it may have several namespaces, and waits once.
    static MINE: RefCell<Weak<Turn>> = const { RefCell::new(Weak::new()) };
}

/// A test's turn on the cluster, from the first time it asks to the last of its objects that goes.
pub struct Turn {
    alone: bool,
    began: Instant,
}

impl Turn {
    /// The turn of this test, shared unless it has the cluster alone.
    pub fn of_this_test() -> Arc<Self> {
        Self::mine().unwrap_or_else(|| {
            let mut turns = turns();
            turns.waiting_to_share += 1;
            turns = wait_while(turns, |turns| turns.alone || turns.sharing >= at_a_time());
            turns.waiting_to_share -= 1;
            turns.sharing += 1;
            Self::begin(false)
        })
    }

    fn alone() -> Arc<Self> {
        assert!(
            Self::mine().is_none(),
            "a test that wants the cluster alone says so before it makes its first namespace"
        );
        let mut turns = wait_while(turns(), |turns| turns.alone || turns.sharing + turns.waiting_to_share > 0);
        turns.alone = true;
        Self::begin(true)
    }

    fn mine() -> Option<Arc<Self>> {
        MINE.with_borrow(Weak::upgrade)
    }

    fn begin(alone: bool) -> Arc<Self> {
        let turn = Arc::new(Self { alone, began: Instant::now() });
        MINE.with_borrow_mut(|mine| *mine = Arc::downgrade(&turn));
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let how = if self.alone { "alone" } else { "shared" };
        announce(&format!("{:4} s {how} {}", self.began.elapsed().as_secs(), thread.name().unwrap_or_default()));
        let mut turns = turns();
        if self.alone {
            turns.alone = false;
        } else {
            turns.sharing -= 1;
        }
        drop(turns);
        CHANGED.notify_all();
    }
}

/// The cluster for one test alone, and Wharf whole when it ends.
pub struct Alone {
    _turn: Arc<Turn>,
}

impl Alone {
    pub fn new() -> Self {
        Self { _turn: Turn::alone() }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Whatever the test took away. What is there stays as it is.
            let _ = attempt("dev/cluster/kill", &["apiserver", "CONT"], "");
            for node in ["node1", "node2"] {
                let _ = attempt("dev/cluster/start", &[node], "");
                let _ = attempt("kubectl", &["uncordon", node], "");
            }
            let _ = attempt("dev/install-charts", &[], "");
        } else {
            wharf_is_whole();
        }
    }
}

/// Waits until the operator and every agent are there.
pub fn wharf_is_whole() {
    for workload in ["deployment/wharf-operator", "daemonset/wharf-agent"] {
        kubectl(&["rollout", "status", workload, "-n", "wharf-system", "--timeout=120s"]);
    }
    leader();
}
