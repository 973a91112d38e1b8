use super::*;

/// A made-up machine in a temporary folder.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(online: &str) -> Machine {
        let machine = Machine(tempfile::tempdir().expect("a temporary folder"));
        machine.put("sys/devices/system/cpu/online", online)
    }

    fn put(self, path: &str, text: &str) -> Machine {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, format!("{text}\n")).expect("a file");
        self
    }

    /// A file of each of `cores`.
    fn put_each(
        self,
        cores: impl IntoIterator<Item = usize>,
        file: &str,
        text: impl Fn(usize) -> String,
    ) -> Machine {
        cores.into_iter().fold(self, |machine, core| {
            let path = format!("sys/devices/system/cpu/cpu{core}/{file}");
            machine.put(&path, &text(core))
        })
    }

    fn capacities(self, capacities: &[u64]) -> Machine {
        self.put_each(0..capacities.len(), "cpu_capacity", |core| {
            capacities[core].to_string()
        })
    }

    fn frequencies(self, frequencies: &[u64]) -> Machine {
        let file = "cpufreq/cpuinfo_max_freq";
        self.put_each(0..frequencies.len(), file, |core| {
            frequencies[core].to_string()
        })
    }

    fn siblings(self, cores: std::ops::Range<usize>, of: impl Fn(usize) -> String) -> Machine {
        self.put_each(cores, "topology/thread_siblings_list", of)
    }

    fn read(&self) -> Topology {
        Topology::read_from(self.0.path())
    }
}

fn everywhere() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn raspberry_pi_5_uses_its_four_equal_cores() {
    let pi = Machine::new("0-3")
        .capacities(&[1024; 4])
        .frequencies(&[2_400_000; 4])
        .siblings(0..4, |core| core.to_string());
    assert_eq!(pi.read().performance_cores(), [0, 1, 2, 3]);
    assert_eq!(pi.read().default_threads(), 4);
    assert_eq!(pi.read().cores()[2].max_frequency, Some(2_400_000));
}

#[test]
fn phone_1_3_4_leaves_out_the_small_cores() {
    // Snapdragon 888: one X1, three A78, four A55.
    let phone = Machine::new("0-7").capacities(&[250, 250, 250, 250, 780, 780, 780, 1024]);
    assert_eq!(phone.read().performance_cores(), [4, 5, 6, 7]);
    // The same without capacities.
    let (small, big, prime) = (1_804_800, 2_419_200, 2_841_600);
    let phone =
        Machine::new("0-7").frequencies(&[small, small, small, small, big, big, big, prime]);
    assert_eq!(phone.read().performance_cores(), [4, 5, 6, 7]);
}

#[test]
fn phone_2_6_uses_two_cores() {
    // Close frequencies: the capacities tell what the frequencies hide.
    let phone = Machine::new("0-7")
        .capacities(&[380, 380, 380, 380, 380, 380, 1024, 1024])
        .frequencies(&[2_000_000; 8]);
    assert_eq!(phone.read().performance_cores(), [6, 7]);
    assert_eq!(phone.read().default_threads(), 2);
}

#[test]
fn intel_hybrid_uses_one_thread_of_each_p_core() {
    // Six P cores of two threads, then eight E cores.
    let laptop = Machine::new("0-19")
        .siblings(0..12, |core| format!("{}-{}", core & !1, core | 1))
        .siblings(12..20, |core| core.to_string())
        .put("sys/devices/cpu_core/cpus", "0-11")
        .put("sys/devices/cpu_atom/cpus", "12-19");
    assert_eq!(laptop.read().performance_cores(), [0, 2, 4, 6, 8, 10]);
    let only_e = laptop.read().restricted_to(&[13, 14]);
    assert_eq!(only_e.performance_cores(), [13, 14]);
}

#[test]
fn smt_server_uses_one_thread_of_each_core() {
    let server =
        Machine::new("0-127").siblings(0..128, |core| format!("{},{}", core % 64, core % 64 + 64));
    let first_threads: Vec<usize> = (0..64).collect();
    assert_eq!(server.read().performance_cores(), first_threads);
    // The second thread of core 3 without the first, both of core 5.
    let part = server.read().restricted_to(&[67, 5, 69]);
    assert_eq!(part.performance_cores(), [5, 67]);
}

#[test]
fn single_core_uses_one_thread() {
    let board = Machine::new("0");
    assert_eq!(board.read().performance_cores(), [0]);
    assert_eq!(board.read().default_threads(), 1);
}

#[test]
fn offline_cores_are_left_out() {
    let board = Machine::new("0,2-3").capacities(&[1024; 4]);
    assert_eq!(board.read().performance_cores(), [0, 2, 3]);
}

#[test]
fn a_mask_without_the_big_cores_uses_the_others() {
    let phone = Machine::new("0-7").capacities(&[250, 250, 250, 250, 780, 780, 780, 1024]);
    let small = phone.read().restricted_to(&[0, 1, 2, 3]);
    assert_eq!(small.performance_cores(), [0, 1, 2, 3]);
    let mixed = phone.read().restricted_to(&[0, 1, 5]);
    assert_eq!(mixed.performance_cores(), [5]);
    // A mask that contradicts the list of online cores cannot be right.
    let lost = phone.read().restricted_to(&[70]);
    assert_eq!(lost.cores().len(), 8);
}

#[test]
fn missing_files_fall_back_to_the_standard_library() {
    let nothing = tempfile::tempdir().expect("a temporary folder");
    let topology = Topology::read_from(nothing.path());
    assert_eq!(topology.performance_cores().len(), everywhere());
    assert_eq!(topology.quota(), None);
}

#[test]
fn garbled_files_are_ignored() {
    for online in [
        "",
        "x",
        "3-1",
        "0-",
        "-",
        "0-18446744073709551615",
        "0,,1",
        "9000",
        "\u{0}",
    ] {
        let topology = Machine::new(online).read();
        assert_eq!(topology.cores().len(), everywhere(), "online = {online:?}");
    }
    // Capacities and siblings that are not all sane count as unknown.
    let board = Machine::new("0-3")
        .capacities(&[1024, 0, 100, 1024])
        .siblings(0..4, |_| "7".to_owned())
        .put("sys/devices/cpu_core/cpus", "?")
        .put("sys/fs/cgroup/cpu.max", "0 0");
    assert_eq!(board.read().performance_cores(), [0, 1, 2, 3]);
    assert_eq!(board.read().default_threads(), 4);
}

#[test]
fn a_quota_bounds_the_threads() {
    for (max, quota) in [
        ("max 100000", None),
        ("200000 100000", Some(2)),
        ("250000 100000", Some(2)),
        ("50000 100000", Some(1)),
        ("800000 100000", Some(8)),
    ] {
        let container = Machine::new("0-3").put("sys/fs/cgroup/cpu.max", max);
        assert_eq!(container.read().quota(), quota, "{max}");
        assert_eq!(
            container.read().default_threads(),
            quota.unwrap_or(4).min(4)
        );
    }
}

#[test]
fn the_tightest_quota_of_all_groups_counts() {
    let service = Machine::new("0-7")
        .put("proc/self/cgroup", "0::/system.slice/kinglet.service")
        .put("sys/fs/cgroup/system.slice/cpu.max", "300000 100000")
        .put(
            "sys/fs/cgroup/system.slice/kinglet.service/cpu.max",
            "max 100000",
        );
    assert_eq!(service.read().quota(), Some(3));
    let first_version = Machine::new("0-7")
        .put(
            "proc/self/cgroup",
            "5:memory:/m\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/x",
        )
        .put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
        .put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
        .put("sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "400000")
        .put("sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us", "100000");
    assert_eq!(first_version.read().quota(), Some(4));
}

#[test]
fn reads_this_machine() {
    let topology = Topology::read();
    let threads = topology.default_threads();
    assert!((1..=topology.cores().len()).contains(&threads));
    if let Some(allowed) = affinity::allowed_cores() {
        assert!(
            topology
                .performance_cores()
                .iter()
                .all(|core| allowed.contains(core))
        );
    }
}
