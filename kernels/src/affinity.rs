//! Which cores a thread may run on, asked of and told to the operating system.

/// The cores that the calling thread may run on; `None` where the system does not tell.
pub fn allowed_cores() -> Option<Vec<usize>> {
    system::allowed_cores()
}

/// Holds the calling thread to `cores`. Returns whether the system did: some accept a mask and
/// ignore it, so the mask in force is read back.
pub fn hold_current_thread(cores: &[usize]) -> bool {
    if !system::hold_current_thread(cores) {
        return false;
    }
    let in_force = allowed_cores().unwrap_or_default();
    !in_force.is_empty() && in_force.iter().all(|core| cores.contains(core))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    /// The kernel's mask: one bit per core in an array of `unsigned long`. More cores than libc's
    /// fixed `cpu_set_t` has (1024), which the kernel refuses to fill on larger machines.
    type Mask = [libc::c_ulong; 8192 / WORD];

    /// Bits of a word of the mask.
    const WORD: usize = libc::c_ulong::BITS as usize;

    pub fn allowed_cores() -> Option<Vec<usize>> {
        let mut mask: Mask = [0; 8192 / WORD];
        // SAFETY: the kernel writes at most `size_of::<Mask>()` bytes to `mask`, which is that long
        // and at least as aligned as `cpu_set_t`, also an array of `unsigned long`. 0 is the
        // calling thread.
        let result =
            unsafe { libc::sched_getaffinity(0, size_of::<Mask>(), mask.as_mut_ptr().cast()) };
        let is_set = |&core: &usize| mask[core / WORD] >> (core % WORD) & 1 == 1;
        (result == 0).then(|| (0..8192).filter(is_set).collect())
    }

    pub fn hold_current_thread(cores: &[usize]) -> bool {
        let mut mask: Mask = [0; 8192 / WORD];
        for &core in cores {
            let Some(word) = mask.get_mut(core / WORD) else {
                return false;
            };
            *word |= 1 << (core % WORD);
        }
        // SAFETY: the kernel reads `size_of::<Mask>()` bytes of `mask`, which is that long; 0 is
        // the calling thread.
        let result = unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), mask.as_ptr().cast()) };
        result == 0
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    pub fn allowed_cores() -> Option<Vec<usize>> {
        None
    }

    pub fn hold_current_thread(_cores: &[usize]) -> bool {
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
