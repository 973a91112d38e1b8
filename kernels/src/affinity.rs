//! Which cores a thread may run on, asked of and told to the operating system.

/// A thread of this process, to be spoken of only while it lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread(system::Id);

impl Thread {
    /// The calling thread, as others may name it; `None` where the system has no such names.
    pub fn current() -> Option<Thread> {
        system::current_thread().map(Thread)
    }

    /// Holds this thread to the cores of the calling one, and that one to the cores of this. Where one of
    /// them waits for its turn on a busy core and the other has nothing to do, that is the one that waits
    /// from then on.
    pub fn change_places(self) {
        let cores = [self.0, system::CALLING].map(system::allowed_cores);
        if let [Some(its), Some(mine)] = cores
            && system::hold(self.0, &mine)
        {
            system::hold(system::CALLING, &its);
        }
    }

    /// Moves this thread to the core that the calling thread is on, until what is returned is dropped. `None`
    /// if the system does not allow it.
    ///
    /// A thread that waits for its turn on a busy core is so on its way at once; the system itself may leave it
    /// there for milliseconds, with other cores idle.
    pub fn bring_here(self) -> Option<Brought> {
        let here = system::current_core()?;
        let before = system::allowed_cores(self.0)?;
        system::hold(self.0, &[here]).then_some(Brought {
            thread: self,
            before,
        })
    }
}

/// A thread that is held to another's core, see [`Thread::bring_here`].
pub(crate) struct Brought {
    thread: Thread,
    before: Vec<usize>,
}

impl Drop for Brought {
    fn drop(&mut self) {
        system::hold(self.thread.0, &self.before);
    }
}

/// The cores that the calling thread may run on; `None` where the system does not tell.
pub fn allowed_cores() -> Option<Vec<usize>> {
    system::allowed_cores(system::CALLING)
}

/// Holds the calling thread to `cores`. Returns whether the system did: some accept a mask and
/// ignore it, so the mask in force is read back.
pub fn hold_current_thread(cores: &[usize]) -> bool {
    if !system::hold(system::CALLING, cores) {
        return false;
    }
    let in_force = allowed_cores().unwrap_or_default();
    !in_force.is_empty() && in_force.iter().all(|core| cores.contains(core))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    pub type Id = libc::pid_t;

    /// What stands for the calling thread.
    pub const CALLING: Id = 0;

    /// The kernel's mask: one bit per core in an array of `unsigned long`. More cores than libc's
    /// fixed `cpu_set_t` has (1024), which the kernel refuses to fill on larger machines.
    type Mask = [libc::c_ulong; 8192 / WORD];

    /// Bits of a word of the mask.
    const WORD: usize = libc::c_ulong::BITS as usize;

    pub fn current_thread() -> Option<Id> {
        // SAFETY: no arguments, and always a thread to name. Not by `gettid`, which older C libraries lack.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) };
        Id::try_from(thread).ok()
    }

    pub fn current_core() -> Option<usize> {
        // SAFETY: no arguments; -1 if the system does not tell.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    pub fn allowed_cores(thread: Id) -> Option<Vec<usize>> {
        let mut mask: Mask = [0; 8192 / WORD];
        // SAFETY: the kernel writes at most `size_of::<Mask>()` bytes to `mask`, which is that long
        // and at least as aligned as `cpu_set_t`, also an array of `unsigned long`. A thread that
        // is none is an error.
        let result =
            unsafe { libc::sched_getaffinity(thread, size_of::<Mask>(), mask.as_mut_ptr().cast()) };
        let is_set = |&core: &usize| mask[core / WORD] >> (core % WORD) & 1 == 1;
        (result == 0).then(|| (0..8192).filter(is_set).collect())
    }

    pub fn hold(thread: Id, cores: &[usize]) -> bool {
        let mut mask: Mask = [0; 8192 / WORD];
        for &core in cores {
            let Some(word) = mask.get_mut(core / WORD) else {
                return false;
            };
            *word |= 1 << (core % WORD);
        }
        // SAFETY: the kernel reads `size_of::<Mask>()` bytes of `mask`, which is that long. A
        // thread that is none is an error.
        let result =
            unsafe { libc::sched_setaffinity(thread, size_of::<Mask>(), mask.as_ptr().cast()) };
        result == 0
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    /// There are none.
    #[derive(Clone, Copy, Debug)]
    pub enum Id {
        Calling,
    }

    pub const CALLING: Id = Id::Calling;

    pub fn current_thread() -> Option<Id> {
        None
    }

    pub fn current_core() -> Option<usize> {
        None
    }

    pub fn allowed_cores(_thread: Id) -> Option<Vec<usize>> {
        None
    }

    pub fn hold(_thread: Id, _cores: &[usize]) -> bool {
        false
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    /// Affinity belongs to a thread: each test uses its own.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().expect("the test passes");
    }

    #[test]
    fn holds_a_thread_to_a_core() {
        on_a_thread(|| {
            let allowed = allowed_cores().expect("Linux tells");
            let last = *allowed.last().expect("this thread runs somewhere");
            assert!(hold_current_thread(&[last]));
            assert_eq!(allowed_cores(), Some(vec![last]));
            assert!(hold_current_thread(&allowed));
        });
    }

    #[test]
    fn reports_cores_that_do_not_exist() {
        on_a_thread(|| {
            let before = allowed_cores();
            assert!(!hold_current_thread(&[8191]));
            assert!(!hold_current_thread(&[usize::MAX]));
            assert!(!hold_current_thread(&[]));
            assert_eq!(allowed_cores(), before);
        });
    }
}
