//! The persistent thread pool.

/// A fixed set of threads that run numbered tasks together; the caller is one of them.
pub struct ThreadPool {
    threads: usize,
}

impl ThreadPool {
    /// A pool of `threads` threads (at least 1), the caller included.
    pub fn new(threads: usize) -> ThreadPool {
        ThreadPool {
            threads: threads.max(1),
        }
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task(index)` once for each index below `tasks`, spread over the threads, and returns
    /// when all have ended.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(task);
    }

    /// Cuts `data` into chunks of `len` (the last may be shorter) and calls `task(index, chunk)`
    /// once for each, spread over the threads.
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        len: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        data.chunks_mut(len)
            .enumerate()
            .for_each(|(index, chunk)| task(index, chunk));
    }
}
