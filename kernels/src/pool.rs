//! The persistent thread pool.
//!
//! A run hands every thread a contiguous share of the tasks; a thread that is done takes what is
//! left of the others' shares. Nobody waits for a thread to wake up: helpers *join* an open run, and
//! the caller, once no task is left, *closes* it and waits only for those that joined. A thread that
//! lost its core to another program within a task goes on at the core of one that waits for it. A core
//! that is slow, busy or asleep so costs its own work and no more.

use crate::affinity::{self, Brought, Thread};
use std::any::Any;
use std::cell::Cell;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

/// The most threads of a pool.
const MAX_THREADS: usize = 1024;

/// How many `spin_loop` hints to wait for work before parking: some 50 to 150 µs, longer than the
/// serial stretches of a forward pass, shorter than anybody's patience with a busy idle core.
const SPINS: u32 = 4000;

/// A task that takes so many times as long as others of its run is taken to have lost its core.
const PATIENCE: u32 = 2;

/// Longer than any task.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// How long after one look at who is late the next one is.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// A task as the caller of [`ThreadPool::run`] passes it.
type Task<'a> = &'a (dyn Fn(usize) + Sync);

thread_local! {
    /// Whether this thread is inside a task; a run from there is serial.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// A fixed set of threads that run numbered tasks together; the caller is one of them.
///
/// Runs from several threads take turns. Dropping the pool ends its threads.
pub struct ThreadPool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Held during a run.
    turn: Mutex<()>,
    unpinned: Vec<usize>,
    /// The thread that is held to a core for this pool, and where it was allowed before.
    held: Option<(ThreadId, Vec<usize>)>,
}

impl ThreadPool {
    /// A pool of `threads` threads (at least 1), the caller included. Fewer if the system refuses
    /// to start more, see [`ThreadPool::threads`].
    pub fn new(threads: usize) -> ThreadPool {
        Self::with_affinity(threads, &[])
    }

    /// [`ThreadPool::new`] with thread `i` held to core `cores[i % cores.len()]`; thread 0 is the
    /// one that calls this function: it is held to its core, and whatever it starts inherits that,
    /// until it drops the pool. Threads may change places. One pool at a time: a second one of the
    /// same thread would find it held. Cores that the system does not grant are no error, see
    /// [`ThreadPool::unpinned_cores`]. An empty list holds nothing anywhere.
    pub fn with_affinity(threads: usize, cores: &[usize]) -> ThreadPool {
        let threads = threads.clamp(1, MAX_THREADS);
        // Asked before the calling thread is pinned, which would make it 1.
        let room = room(cores).unwrap_or(1);
        let spins = if threads <= room { SPINS } else { 0 };
        let shared = Arc::new(Shared::new(threads, spins));
        let core_of = |index: usize| cores.get(index % cores.len().max(1)).copied();
        let (report, reports) = mpsc::channel();
        let helpers = (1..threads)
            .map_while(|index| start_helper(&shared, index, core_of(index), report.clone()).ok())
            .collect();
        drop(report);
        let mut unpinned: Vec<usize> = reports.into_iter().collect();
        let mut held = None;
        if let Some(core) = core_of(0) {
            held = affinity::allowed_cores().map(|before| (thread::current().id(), before));
            shared.lanes[0].introduce_thread();
            unpinned.extend((!hold_to(core)).then_some(core));
        }
        unpinned.sort_unstable();
        unpinned.dedup();
        ThreadPool {
            shared,
            helpers,
            turn: Mutex::new(()),
            unpinned,
            held,
        }
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// The cores given to [`ThreadPool::with_affinity`] that the system did not grant: it refused
    /// the affinity mask, or accepted it without effect.
    pub fn unpinned_cores(&self) -> &[usize] {
        &self.unpinned
    }

    /// Where the calling thread was allowed before it was held for this pool; `None` if it is not.
    fn allowed_before(&self) -> Option<&[usize]> {
        let (thread, before) = self.held.as_ref()?;
        (*thread == thread::current().id()).then_some(before)
    }

    /// Calls `task(index)` once for each index below `tasks`, spread over the threads, and returns
    /// when all have ended. From inside a task it runs on that thread alone.
    ///
    /// # Panics
    /// If a task panics, with the payload of the first that did, when no task runs any more; whether
    /// tasks that had not started still run is unspecified. The pool stays usable.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.helpers.is_empty() || IN_TASK.get() {
            return (0..tasks).for_each(task);
        }
        let turn = lock(&self.turn);
        let is_held = self.allowed_before().is_some();
        self.shared.caller_is_held.store(is_held, Ordering::Relaxed);
        self.shared.open(tasks, &task, self.threads());
        for helper in 1..self.threads().min(tasks) {
            if self.shared.lanes[helper].asleep.load(Ordering::SeqCst) {
                self.helpers[helper - 1].thread().unpark();
            }
        }
        let part = self.shared.work(0, task);
        let panic = self.shared.close(part);
        drop(turn);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Cuts `data` into chunks of `len` (the last may be shorter) and calls `task(index, chunk)`
    /// once for each, spread over the threads.
    ///
    /// # Panics
    /// If `len` is 0, and as [`ThreadPool::run`].
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        assert!(len > 0, "chunks of no elements");
        let total = data.len();
        // Through an atomic for its `Sync`: the tasks share the pointer, not the elements.
        let start = AtomicPtr::new(data.as_mut_ptr());
        self.run(total.div_ceil(len), &|index| {
            let from = index * len;
            let here = len.min(total - from);
            // SAFETY: `from + here <= total`, so the chunk lies within `data`, which is borrowed
            // mutably until `run` returns. Indices are distinct, hence chunks disjoint, and
            // `T: Send` lets another thread have them.
            let chunk = unsafe {
                std::slice::from_raw_parts_mut(start.load(Ordering::Relaxed).add(from), here)
            };
            task(index, chunk);
        });
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.state.fetch_or(SHUT_DOWN, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper catches every panic of its tasks, so there is none to hand on.
            let _ = helper.join();
        }
        if let Some(before) = self.allowed_before() {
            affinity::hold_current_thread(before);
        }
    }
}

fn start_helper(
    shared: &Arc<Shared>,
    index: usize,
    core: Option<usize>,
    report: mpsc::Sender<usize>,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new()
        .name(format!("kinglet-{index}"))
        .spawn(move || {
            if let Some(core) = core.filter(|&core| !hold_to(core)) {
                // The receiver waits until every helper has dropped its sender.
                let _ = report.send(core);
            }
            drop(report);
            shared.help(index);
        })
}

fn hold_to(core: usize) -> bool {
    affinity::hold_current_thread(&[core])
}

/// How many threads run at once if they are held to `cores`, or anywhere if the list is empty; `None`
/// if the system does not tell. To be asked before the calling thread is held to a core.
pub fn room(cores: &[usize]) -> Option<usize> {
    let available = thread::available_parallelism().ok()?.get();
    Some(match distinct(cores) {
        0 => available,
        cores => available.min(cores),
    })
}

fn distinct(cores: &[usize]) -> usize {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    cores.len()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes here guard is whole after any panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Helpers that have joined the run: the low bits of [`Shared::state`].
const JOINED: u64 = (1 << 16) - 1;
/// Helpers may join.
const OPEN: u64 = 1 << 16;
/// The caller sleeps until the last helper has left.
const CALLER_WAITS: u64 = 1 << 17;
/// The pool is being dropped.
const SHUT_DOWN: u64 = 1 << 18;
/// One run; the high bits of [`Shared::state`] number them.
const RUN: u64 = 1 << 32;

/// What the threads of a pool share.
struct Shared {
    /// [`JOINED`], flags, and the number of the run, in one word so that joining is one exchange.
    state: Padded<AtomicU64>,
    /// Points to the [`Task`] of the run, on the caller's stack; valid for those who have joined.
    task: AtomicPtr<()>,
    lanes: Box<[Padded<Lane>]>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Guards the wait of the caller for the last helper.
    leaving: Mutex<()>,
    left: Condvar,
    spins: u32,
    /// The caller of the run is the thread of lane 0, and held to a core like all others.
    caller_is_held: AtomicBool,
    /// The last run in which a helper changed places with the caller; held while one does.
    places: Mutex<u64>,
}

/// A thread's share of the tasks: `next..end`, taken from the front by anyone.
#[derive(Default)]
struct Lane {
    next: AtomicUsize,
    end: AtomicUsize,
    /// The thread is parked or about to be.
    asleep: AtomicBool,
    /// The thread runs tasks.
    working: AtomicBool,
    /// The helper, once it has started; of lane 0 the thread that is held for the pool.
    thread: OnceLock<Thread>,
}

/// What a thread did of a run.
struct Part {
    start: Instant,
    tasks: u32,
}

impl Part {
    /// How long from its end, which was by `waiting`, others may take for a task. For ever if this thread did
    /// none.
    fn patience(&self, waiting: Instant) -> Duration {
        let all = waiting - self.start;
        all.checked_div(self.tasks)
            .map_or(FOR_EVER, |task| task * PATIENCE)
    }
}

/// Keeps what different threads write off each other's cache lines (128 bytes: pairs of lines are
/// fetched together on x86, and lines are that long on some ARM cores).
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Shared {
    fn new(threads: usize, spins: u32) -> Shared {
        Shared {
            state: Padded(AtomicU64::new(0)),
            task: AtomicPtr::new(std::ptr::null_mut()),
            lanes: (0..threads).map(|_| Padded::default()).collect(),
            panic: Mutex::new(None),
            leaving: Mutex::new(()),
            left: Condvar::new(),
            spins,
            caller_is_held: AtomicBool::new(false),
            places: Mutex::new(0),
        }
    }

    /// Starts a run: shares out the tasks, then lets helpers join. No run is open.
    fn open(&self, tasks: usize, task: &Task, threads: usize) {
        let sharers = threads.min(tasks);
        let share = |lane: usize| {
            let lane = lane.min(sharers);
            tasks / sharers * lane + (tasks % sharers).min(lane)
        };
        for (index, lane) in self.lanes.iter().enumerate() {
            lane.next.store(share(index), Ordering::Relaxed);
            lane.end.store(share(index + 1), Ordering::Relaxed);
        }
        let task = std::ptr::from_ref(task).cast_mut().cast();
        self.task.store(task, Ordering::Relaxed);
        let last_run = self.state.load(Ordering::Relaxed) & !(RUN - 1);
        // `SeqCst`, as the loads of `asleep` that follow and the pair in `wait`: either the helper
        // sees this run, or the caller sees the helper asleep.
        self.state
            .store(last_run.wrapping_add(RUN) | OPEN, Ordering::SeqCst);
    }

    /// Ends a run of which no task is left to start and the caller did `part`: waits for the helpers
    /// that joined, and returns the first panic.
    fn close(&self, part: Part) -> Option<Box<dyn Any + Send>> {
        self.state.fetch_and(!OPEN, Ordering::Relaxed);
        let joined = || self.state.load(Ordering::Acquire) & JOINED;
        if let Err(patience) = self.spin_after(&part, || joined() == 0) {
            let mut leaving = lock(&self.leaving);
            self.state.fetch_or(CALLER_WAITS, Ordering::Relaxed);
            // Where threads are held nowhere, the system finds a core for one that is late. (Or a thread runs
            // this for which the pool was not made, and may be anywhere.)
            let held = self.caller_is_held.load(Ordering::Relaxed);
            let (mut patience, mut brought) = (if held { patience } else { FOR_EVER }, None);
            while joined() > 0 {
                let waited = self.left.wait_timeout(leaving, patience);
                let (guard, time) = waited.unwrap_or_else(PoisonError::into_inner);
                leaving = guard;
                if time.timed_out() {
                    brought = brought.or_else(|| self.bring_last());
                    patience = brought.as_ref().map_or(LOOK_AGAIN, |_| FOR_EVER);
                }
            }
        }
        lock(&self.panic).take()
    }

    /// Spins for `done` after a part of a run. If it does not come: what is left of the patience with others.
    fn spin_after(&self, part: &Part, mut done: impl FnMut() -> bool) -> Result<(), Duration> {
        // Mostly it comes so early that a look at the clock would take as long.
        if spin(self.spins / 16, &mut done) {
            return Ok(());
        }
        let waiting = Instant::now();
        if spin(self.spins, &mut done) {
            return Ok(());
        }
        Err(part.patience(waiting).saturating_sub(waiting.elapsed()))
    }

    /// Brings the helper that works on to the caller's core, which has nothing else to do. Not one of
    /// several: those that do have their cores would be in each other's way.
    fn bring_last(&self) -> Option<Brought> {
        let mut working = self
            .lanes
            .iter()
            .filter(|lane| lane.working.load(Ordering::Relaxed));
        match (working.next(), working.next()) {
            (Some(last), None) => last.thread.get()?.bring_here(),
            _ => None,
        }
    }

    /// The life of helper `index`.
    fn help(&self, index: usize) {
        self.lanes[index].introduce_thread();
        let mut last_run = 0;
        let mut part = Part {
            start: Instant::now(),
            tasks: 0,
        };
        while let Some(run) = self.wait(index, last_run, &part) {
            last_run = run / RUN;
            if !self.join(run) {
                continue;
            }
            let task = self.task.load(Ordering::Relaxed).cast::<Task>();
            // SAFETY: this thread has joined a run that was open, and has not left. `open` stored
            // the pointer before it opened the run, and `close` does not return before this thread
            // leaves, so the caller's stack frame with the `Task`, and what that borrows, live.
            let task = unsafe { *task };
            part = self.work(index, task);
            self.leave();
        }
    }

    /// Waits for a run other than `last_run`, of which this thread did `part`, that is open, and returns
    /// the state that showed it; `None` when the pool shuts down.
    fn wait(&self, index: usize, last_run: u64, part: &Part) -> Option<u64> {
        let mut found = None;
        let mut look = || {
            let state = self.state.load(Ordering::SeqCst);
            let is_news = state & SHUT_DOWN != 0 || (state & OPEN != 0 && state / RUN != last_run);
            found = is_news.then_some(state);
            is_news
        };
        if let Err(patience) = self.spin_after(part, &mut look) {
            let mut patience = Some(patience);
            let asleep = &self.lanes[index].asleep;
            asleep.store(true, Ordering::SeqCst);
            while !look() {
                match patience.take() {
                    Some(left) if self.caller_works_on(last_run) => {
                        let since = Instant::now();
                        thread::park_timeout(left);
                        // It may return early, most of all for a run that is over.
                        patience = left.checked_sub(since.elapsed());
                        if patience.is_none() {
                            self.take_the_callers_place(last_run);
                        }
                    }
                    _ => thread::park(),
                }
            }
            asleep.store(false, Ordering::Relaxed);
        }
        found.filter(|state| state & SHUT_DOWN == 0)
    }

    /// Joins the run that `seen` shows, unless it has been closed since.
    fn join(&self, seen: u64) -> bool {
        let joined = self
            .state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state & OPEN != 0 && state / RUN == seen / RUN).then_some(state + 1)
            });
        joined.is_ok()
    }

    fn leave(&self) {
        let before = self.state.fetch_sub(1, Ordering::Release);
        if before & JOINED == 1 && before & CALLER_WAITS != 0 {
            drop(lock(&self.leaving));
            self.left.notify_one();
        }
    }

    /// Runs tasks until none is left to start: first those of lane `own`, then those of the others.
    fn work(&self, own: usize, task: Task) -> Part {
        IN_TASK.set(true);
        self.lanes[own].working.store(true, Ordering::Relaxed);
        let start = Instant::now();
        let done = Cell::new(0u32);
        let lanes = || self.lanes[own..].iter().chain(&self.lanes[..own]);
        let drain = || {
            for index in lanes().flat_map(|lane| iter::from_fn(|| lane.take())) {
                done.set(done.get().saturating_add(1));
                task(index);
            }
        };
        while let Err(payload) = catch_unwind(AssertUnwindSafe(drain)) {
            let mut first = lock(&self.panic);
            if first.is_none() {
                *first = Some(payload);
            } else {
                // Dropped, it could panic where nobody catches it.
                std::mem::forget(payload);
            }
        }
        self.lanes[own].working.store(false, Ordering::Relaxed);
        IN_TASK.set(false);
        Part {
            start,
            tasks: done.get(),
        }
    }

    /// Changes places with the caller of `run` if it works still, which has lost its core, then. Once in a run:
    /// where the caller is then, another helper has nothing better to offer.
    fn take_the_callers_place(&self, run: u64) {
        if let Ok(mut last) = self.places.try_lock()
            && *last != run
            && self.caller_works_on(run)
            && let Some(caller) = self.lanes[0].thread.get()
        {
            *last = run;
            caller.change_places();
        }
    }

    /// Whether `run` is open and no task is left to start but the caller has not ended its last one.
    fn caller_works_on(&self, run: u64) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state & OPEN != 0 && state / RUN == run && self.caller_is_held.load(Ordering::Relaxed)
    }
}

impl Lane {
    /// Tells others of the calling thread as that of this lane.
    fn introduce_thread(&self) {
        if let Some(thread) = Thread::current() {
            self.thread.get_or_init(|| thread);
        }
    }

    /// Takes the next task, if there is one.
    fn take(&self) -> Option<usize> {
        let end = self.end.load(Ordering::Relaxed);
        // Looking first keeps `next` from running away, and thieves from writing in vain.
        if self.next.load(Ordering::Relaxed) >= end {
            return None;
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < end).then_some(index)
    }
}

/// Waits for `done`, at most `spins` hints long. Returns whether it came.
fn spin(spins: u32, mut done: impl FnMut() -> bool) -> bool {
    for _ in 0..spins {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    done()
}

#[cfg(test)]
mod tests;
