//! The cores of this machine, and which of them are worth a thread.
//!
//! Everything comes from files of Linux and Android; what is missing or unreadable is left out, and
//! where nothing is known the answer is that of [`std::thread::available_parallelism`].

use crate::affinity;
use std::fs;
use std::path::{Path, PathBuf};

/// Cores with at least this share of the highest `cpu_capacity` count as performance cores. The
/// capacity scale is linear in speed; efficiency cores of phones lie at 0.15 to 0.45 of it, second
/// and third tiers of performance cores at 0.5 and more.
pub const CAPACITY_RATIO: f64 = 0.5;

/// Where capacities are unknown: cores with at least this share of the highest maximum frequency.
/// Close to 1, because efficiency cores are slower at the same frequency too.
pub const FREQUENCY_RATIO: f64 = 0.8;

/// Larger core numbers are taken for garbage.
const MAX_CORES: usize = 8192;

/// What is known of the cores that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    cores: Vec<Core>,
    quota: Option<usize>,
}

/// A logical core, online and allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// The system's number.
    pub number: usize,
    /// Relative speed, 1024 for the fastest (`cpu_capacity`), on big.LITTLE.
    pub capacity: Option<u64>,
    /// Highest frequency in kHz (`cpufreq/cpuinfo_max_freq`).
    pub max_frequency: Option<u64>,
    /// The logical cores of the same physical core, this one included.
    pub siblings: Vec<usize>,
    /// Whether this is a performance core of an x86 hybrid; `None` on other machines.
    pub hybrid_performance: Option<bool>,
}

impl Topology {
    /// The topology of this machine, restricted to the cores that the calling thread may run on
    /// (after [`crate::pool::ThreadPool::with_affinity`] that is one).
    pub fn read() -> Topology {
        let topology = Self::read_from(Path::new("/"));
        match affinity::allowed_cores() {
            Some(allowed) => topology.restricted_to(&allowed),
            None => topology,
        }
    }

    /// [`Topology::read`] from the folders `sys` and `proc` below `root`, with all cores allowed.
    pub fn read_from(root: &Path) -> Topology {
        let devices = root.join("sys/devices");
        let numbers = read_list(&devices.join("system/cpu/online")).unwrap_or_else(|| {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            (0..cores).collect()
        });
        let performance = read_list(&devices.join("cpu_core/cpus"));
        let cores = numbers.into_iter().map(|number| {
            let core = devices.join(format!("system/cpu/cpu{number}"));
            let siblings = read_list(&core.join("topology/thread_siblings_list"));
            Core {
                number,
                capacity: read_number(&core.join("cpu_capacity")),
                max_frequency: read_number(&core.join("cpufreq/cpuinfo_max_freq")),
                siblings: siblings
                    .filter(|siblings| siblings.contains(&number))
                    .unwrap_or_else(|| vec![number]),
                hybrid_performance: performance.as_ref().map(|list| list.contains(&number)),
            }
        });
        Topology {
            cores: cores.collect(),
            quota: read_quota(root),
        }
    }

    /// The same without the cores that are not in `allowed`; unchanged if that would leave none.
    pub fn restricted_to(mut self, allowed: &[usize]) -> Topology {
        if self.cores.iter().any(|core| allowed.contains(&core.number)) {
            self.cores.retain(|core| allowed.contains(&core.number));
        }
        self
    }

    /// The cores, by ascending number.
    pub fn cores(&self) -> &[Core] {
        &self.cores
    }

    /// How many cores' worth of time a container or service may use (control group quota), rounded
    /// down, at least 1; `None` without a limit.
    pub fn quota(&self) -> Option<usize> {
        self.quota
    }

    /// One logical core for each physical performance core, by ascending number; never empty.
    ///
    /// On x86 hybrids these are the P cores; else, where capacities (or failing that, frequencies)
    /// are known of all cores, those within [`CAPACITY_RATIO`] (or [`FREQUENCY_RATIO`]) of the top.
    pub fn performance_cores(&self) -> Vec<usize> {
        let mut fast = self.fast_cores();
        let numbers: Vec<usize> = fast.iter().map(|core| core.number).collect();
        fast.retain(|core| {
            let first = core
                .siblings
                .iter()
                .find(|sibling| numbers.contains(sibling));
            first == Some(&core.number)
        });
        fast.iter().map(|core| core.number).collect()
    }

    fn fast_cores(&self) -> Vec<&Core> {
        let cores = || self.cores.iter();
        if cores().any(|core| core.hybrid_performance == Some(true)) {
            return cores()
                .filter(|core| core.hybrid_performance == Some(true))
                .collect();
        }
        self.within(CAPACITY_RATIO, |core| core.capacity)
            .or_else(|| self.within(FREQUENCY_RATIO, |core| core.max_frequency))
            .unwrap_or_else(|| cores().collect())
    }

    /// The cores whose `speed` is at least `ratio` of the highest, if that of all is known.
    fn within(&self, ratio: f64, speed: impl Fn(&Core) -> Option<u64>) -> Option<Vec<&Core>> {
        let speeds: Option<Vec<u64>> = self.cores.iter().map(speed).collect();
        let speeds = speeds?;
        let least = *speeds.iter().max()? as f64 * ratio;
        let pairs = self.cores.iter().zip(speeds);
        Some(
            pairs
                .filter(|&(_, speed)| speed as f64 >= least)
                .map(|(core, _)| core)
                .collect(),
        )
    }

    /// Threads to use unless told otherwise: the performance cores, within the quota.
    pub fn default_threads(&self) -> usize {
        let cores = self.performance_cores().len();
        self.quota.map_or(cores, |quota| cores.min(quota))
    }
}

/// A positive number in a file of its own.
fn read_number(path: &Path) -> Option<u64> {
    let number = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (number > 0).then_some(number)
}

/// The kernel's list format, `0-3,8`, in a file of its own: ascending, not empty.
fn read_list(path: &Path) -> Option<Vec<usize>> {
    let text = fs::read_to_string(path).ok()?;
    let mut numbers = vec![];
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MAX_CORES {
            return None;
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

/// The tightest quota of the control groups that this process is in: version 2 (`cpu.max`) or 1
/// (`cpu.cfs_quota_us` over `cpu.cfs_period_us`), with all their ancestors.
fn read_quota(root: &Path) -> Option<usize> {
    let mounts = root.join("sys/fs/cgroup");
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // A process that cannot see its group sees, in a container, its own group as the root.
    let groups = groups.lines().chain(["0::/", "0:cpu:/"]);
    let quotas = groups.flat_map(|line| {
        let (controllers, path) = line
            .split_once(':')
            .and_then(|(_, rest)| rest.split_once(':'))
            .unwrap_or_default();
        let mount = match controllers {
            "" => Some(mounts.clone()),
            _ if controllers.split(',').any(|name| name == "cpu") => Some(mounts.join("cpu")),
            _ => None,
        };
        let groups = mount.map(|mount| with_ancestors(&mount, path));
        groups.into_iter().flatten()
    });
    quotas.filter_map(|group| group_quota(&group)).min()
}

/// The folder of a control group and those of its ancestors, up to `mount`.
fn with_ancestors(mount: &Path, path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors().map(|path| mount.join(path)).collect()
}

fn group_quota(group: &Path) -> Option<usize> {
    let (quota, period) = match fs::read_to_string(group.join("cpu.max")) {
        Ok(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)
        }
        // Without a limit the quota is -1, which is no number of ours.
        Err(_) => (
            read_number(&group.join("cpu.cfs_quota_us"))?,
            read_number(&group.join("cpu.cfs_period_us"))?,
        ),
    };
    let cores = quota.checked_div(period)?.max(1);
    usize::try_from(cores).ok()
}

#[cfg(test)]
mod tests;
