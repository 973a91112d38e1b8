use super::*;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

fn counts(tasks: usize) -> Vec<AtomicU32> {
    (0..tasks).map(|_| AtomicU32::new(0)).collect()
}

fn assert_all(counts: &[AtomicU32], expected: u32) {
    for (index, count) in counts.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), expected, "task {index}");
    }
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().expect("a text").to_string(),
    }
}

/// Waits until two threads are here.
fn meet(arrived: &AtomicU32) {
    arrived.fetch_add(1, Ordering::Relaxed);
    while arrived.load(Ordering::Relaxed) < 2 {
        thread::yield_now();
    }
}

#[test]
fn runs_every_task_once() {
    for threads in [0, 1, 2, 3, 4, 7, 16] {
        let pool = ThreadPool::new(threads);
        assert_eq!(pool.threads(), threads.max(1));
        for tasks in (0..40).chain([63, 64, 65, 1000]) {
            let seen = counts(tasks);
            pool.run(tasks, &|index| {
                seen[index].fetch_add(1, Ordering::Relaxed);
            });
            assert_all(&seen, 1);
        }
    }
}

#[test]
fn panics_whose_payloads_panic_when_dropped_end_the_run() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let pool = ThreadPool::new(3);
    let bombs = || pool.run(30, &|_| std::panic::panic_any(Bomb));
    let payload = catch_unwind(AssertUnwindSafe(bombs)).expect_err("tasks panic");
    assert!(payload.is::<Bomb>());
    std::mem::forget(payload);
    let seen = counts(30);
    pool.run(30, &|index| {
        seen[index].fetch_add(1, Ordering::Relaxed);
    });
    assert_all(&seen, 1);
}

#[test]
fn serves_many_runs() {
    let pool = ThreadPool::new(3);
    let seen = counts(5);
    for _ in 0..100_000 {
        pool.run(5, &|index| {
            seen[index].fetch_add(1, Ordering::Relaxed);
        });
    }
    assert_all(&seen, 100_000);
}

#[test]
fn serves_runs_after_sleep() {
    let pool = ThreadPool::new(4);
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(5));
        let seen = counts(100);
        pool.run(100, &|index| {
            seen[index].fetch_add(1, Ordering::Relaxed);
        });
        assert_all(&seen, 1);
    }
}

#[test]
fn takes_work_from_a_slow_thread() {
    // The task that holds its thread ends only when all others have: they were taken.
    let pool = ThreadPool::new(2);
    for slow in [0, 50] {
        let done = AtomicU32::new(0);
        pool.run(100, &|index| {
            if index == slow {
                while done.load(Ordering::Relaxed) < 99 {
                    thread::yield_now();
                }
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 100);
    }
}

#[test]
fn uses_several_threads() {
    // No task ends before both have started: one thread alone would never return.
    let pool = ThreadPool::new(2);
    let started = AtomicU32::new(0);
    pool.run(2, &|_| {
        meet(&started);
    });
}

#[test]
fn runs_serially_inside_a_task() {
    let pool = ThreadPool::new(3);
    let seen = counts(8 * 16);
    pool.run(8, &|outer| {
        let thread = thread::current().id();
        pool.run(16, &|inner| {
            assert_eq!(thread::current().id(), thread);
            seen[outer * 16 + inner].fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_all(&seen, 1);
}

#[test]
fn hands_a_panic_to_the_caller_and_stays_usable() {
    for threads in [1, 2, 5] {
        let pool = ThreadPool::new(threads);
        for bad in [0, 31, 63] {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(64, &|index| assert!(index != bad, "task {bad} fails"));
            }));
            let payload = result.expect_err("the panic arrives");
            assert_eq!(panic_text(payload), format!("task {bad} fails"));
            let seen = counts(64);
            pool.run(64, &|index| {
                seen[index].fetch_add(1, Ordering::Relaxed);
            });
            assert_all(&seen, 1);
        }
    }
}

#[test]
fn survives_panics_of_all_tasks() {
    let pool = ThreadPool::new(4);
    let run = || pool.run(100, &|_| panic!("every task fails"));
    let payload = catch_unwind(AssertUnwindSafe(run)).expect_err("the panic arrives");
    assert_eq!(panic_text(payload), "every task fails");
}

#[test]
fn takes_turns_among_callers() {
    let pool = ThreadPool::new(3);
    let seen = counts(10);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    pool.run(10, &|index| {
                        seen[index].fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_all(&seen, 800);
}

#[test]
fn cuts_chunks() {
    let pool = ThreadPool::new(3);
    for (total, len) in [(0, 3), (1, 3), (3, 3), (100, 7), (100, 1000)] {
        let mut data = vec![0; total];
        pool.for_each_chunk(&mut data, len, |index, chunk| {
            assert_eq!(chunk.len(), len.min(total - index * len));
            chunk.iter_mut().for_each(|value| *value += index + 1);
        });
        let expected: Vec<usize> = (0..total).map(|at| at / len + 1).collect();
        assert_eq!(data, expected, "{total} in chunks of {len}");
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod held {
    use super::*;

    /// The only core that the calling thread may run on.
    fn core() -> usize {
        let cores = affinity::allowed_cores().expect("Linux tells");
        assert_eq!(cores.len(), 1, "{cores:?}");
        cores[0]
    }

    /// Runs a test with a pool of two threads, held to the first core and the last, and these.
    fn with_two_cores(test: fn(&ThreadPool, [usize; 2])) {
        let test = move || {
            let before = affinity::allowed_cores().expect("Linux tells");
            let cores = [before[0], before[before.len() - 1]];
            let pool = ThreadPool::with_affinity(2, &cores);
            assert_eq!(pool.unpinned_cores(), []);
            test(&pool, cores);
            drop(pool);
            assert_eq!(affinity::allowed_cores(), Some(before));
        };
        thread::spawn(test).join().expect("the test passes");
    }

    /// Runs a task on each of two threads, which is told whether it is the caller's.
    fn on_both(pool: &ThreadPool, task: impl Fn(bool) + Sync) {
        let (caller, met) = (thread::current().id(), AtomicU32::new(0));
        pool.run(2, &|_| {
            meet(&met);
            task(thread::current().id() == caller);
        });
    }

    /// Waits for the calling thread to get to a core.
    fn wait_for(expected: usize) {
        let start = Instant::now();
        while core() != expected {
            assert!(start.elapsed() < Duration::from_secs(60), "never moved");
            thread::yield_now();
        }
    }

    #[test]
    fn holds_threads_to_cores_while_it_lives() {
        with_two_cores(|pool, cores| {
            let mine = [true, false].map(|_| AtomicUsize::new(usize::MAX));
            let looked = AtomicU32::new(0);
            on_both(pool, |caller| {
                mine[usize::from(!caller)].store(core(), Ordering::Relaxed);
                meet(&looked);
            });
            // Either way round: one that is late changes places with the other.
            let mut mine = mine.map(AtomicUsize::into_inner);
            mine.sort_unstable();
            assert_eq!(mine, cores);
        });
        let pool = ThreadPool::with_affinity(3, &[8191, 8190]);
        assert_eq!(pool.unpinned_cores(), [8190, 8191]);
    }

    #[test]
    fn brings_a_late_helper_to_the_callers_core() {
        with_two_cores(|pool, cores| {
            for _ in 0..3 {
                on_both(pool, |caller| {
                    if !caller {
                        wait_for(cores[0]);
                    }
                });
            }
        });
    }

    #[test]
    fn a_late_caller_changes_places_with_a_helper() {
        with_two_cores(|pool, cores| {
            for turn in 0..4 {
                on_both(pool, |caller| {
                    if caller {
                        wait_for(cores[(turn + 1) % 2]);
                    }
                });
            }
        });
    }
}
