//! What the machine gives and does beside the measurement: how far its two cpus are apart, who
//! waited for one, what the host took.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The cpu of the backend under test.
pub const BACKEND_CPU: usize = 0;
/// The cpu of the client.
pub const CLIENT_CPU: usize = 1;

/// Round trips of a cache line in one reading, and readings of which the median counts: a thread
/// that loses its cpu spoils one of them only.
const TRIPS: u64 = 2_000;
const READINGS: u64 = 31;

/// Keeps the calling thread on one cpu.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a small number");
    sched_setaffinity(Pid::from_raw(0), &set).expect("compare needs two cpus");
}

#[repr(align(128))]
struct Line(AtomicU64);

/// How long a cache line takes from one cpu to the other and back, ns. Virtual cpus move about on
/// their host; when they are far apart, everything that crosses from client to backend is slower
/// by as much.
pub fn ping_pong() -> f64 {
    let line = Line(AtomicU64::new(0));
    let line = &line.0;
    let play = |cpu: usize, side: u64| {
        pin(cpu);
        let mut readings = Vec::new();
        let mut turn = side;
        for _ in 0..READINGS {
            let started = Instant::now();
            for _ in 0..TRIPS {
                while line.load(Ordering::Acquire) != turn {}
                line.store(turn + 1, Ordering::Release);
                turn += 2;
            }
            readings.push(started.elapsed().as_nanos() as f64 / TRIPS as f64);
        }
        readings
    };
    let mut readings = std::thread::scope(|scope| {
        scope.spawn(|| play(CLIENT_CPU, 1));
        let other = scope.spawn(|| play(BACKEND_CPU, 0));
        other.join().expect("no panic in there")
    });
    readings.sort_by(f64::total_cmp);
    readings[readings.len() / 2]
}

/// Processes that stand still while this lives.
pub struct Stopped<'a>(&'a [u32]);

impl<'a> Stopped<'a> {
    /// Stop them.
    pub fn new(pids: &'a [u32]) -> Self {
        for pid in pids {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGSTOP);
        }
        // The signal is taken at the next return to user space.
        std::thread::sleep(Duration::from_millis(5));
        Self(pids)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        for pid in self.0 {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGCONT);
        }
    }
}

/// Time on a cpu and time waiting for one, ns, of each thread.
type Tasks = HashMap<(u32, String), (u64, u64)>;

fn tasks(pids: &[u32]) -> Tasks {
    let mut all = Tasks::new();
    for pid in pids {
        let dir = format!("/proc/{pid}/task");
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path().join("schedstat")).unwrap_or_default();
            let mut numbers = text.split_whitespace().map_while(|n| n.parse().ok());
            if let (Some(run), Some(wait)) = (numbers.next(), numbers.next()) {
                let tid = entry.file_name().to_string_lossy().into_owned();
                all.insert((*pid, tid), (run, wait));
            }
        }
    }
    all
}

/// Seconds since boot, all cpus together, in the order of proc_stat(5): user, nice, system, idle,
/// iowait, irq, softirq, steal.
fn cpu_times() -> [f64; 8] {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let mut times = [0.0; 8];
    for (time, word) in times.iter_mut().zip(first.split_whitespace().skip(1)) {
        // USER_HZ is 100 on every machine that Linux still runs on.
        *time = word.parse().unwrap_or(0.0) / 100.0;
    }
    times
}

/// Seconds that programs used which this process has started and which have ended.
fn own_children() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else {
        return 0.0;
    };
    let seconds = |t: TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The kernel's threads for what does not fit into interrupts.
fn network_threads() -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_one = |pid: &u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("ksoftirqd/")
    };
    let pids = processes.filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(is_one).collect()
}

/// Waits until nothing else runs, or `patience` is over. Those to be measured are stopped.
pub fn settle(patience: Duration) {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        let before = cpu_times();
        std::thread::sleep(Duration::from_millis(300));
        let after = cpu_times();
        let spent: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
        let idle = spent[3] + spent[4];
        if idle > 0.95 * spent.iter().sum::<f64>() {
            return;
        }
    }
}

/// What goes on beside a window of measurement.
pub struct Watch {
    pids: Vec<u32>,
    started: Instant,
    cpu_times: [f64; 8],
    own_children: f64,
    tasks: Tasks,
    /// What the kernel does for the network outside of processes.
    kernel: Tasks,
}

/// What went on, each as a share of the window.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The longest wait for a cpu among the busiest threads of the processes.
    pub wait: f64,
    /// What the host took, of all cpus together.
    pub steal: f64,
    /// What the first process used: 1 is a cpu all the time.
    pub backend_cpu: f64,
    /// What others used: neither the processes, nor programs that this one has started and that
    /// have ended within the window, nor the kernel's network threads.
    pub others: f64,
}

impl Watch {
    /// From now on, over these processes.
    pub fn start(pids: Vec<u32>) -> Self {
        // What this process does in between is neither measured nor somebody else's.
        let pids: Vec<_> = pids.into_iter().chain([std::process::id()]).collect();
        Self {
            started: Instant::now(),
            cpu_times: cpu_times(),
            own_children: own_children(),
            tasks: tasks(&pids),
            kernel: tasks(&network_threads()),
            pids,
        }
    }

    /// Up to now.
    pub fn end(self) -> Load {
        let after = tasks(&self.pids);
        let nanos = self.started.elapsed().as_nanos() as f64;
        let mut busiest: HashMap<u32, (u64, u64)> = HashMap::new();
        let mut backend = 0;
        for (task, (run, wait)) in &after {
            let (run0, wait0) = self.tasks.get(task).copied().unwrap_or_default();
            let (run, wait) = (run - run0.min(*run), wait - wait0.min(*wait));
            let most = busiest.entry(task.0).or_default();
            if task.0 != std::process::id() && run + wait > most.0 + most.1 {
                *most = (run, wait);
            }
            if Some(&task.0) == self.pids.first() {
                backend += run;
            }
        }
        let runtime = |tasks: &Tasks| tasks.values().map(|t| t.0).sum::<u64>() as f64;
        let ours = runtime(&after) - runtime(&self.tasks) + runtime(&tasks(&network_threads()))
            - runtime(&self.kernel)
            + (own_children() - self.own_children) * 1e9;
        let mut spent = cpu_times();
        spent
            .iter_mut()
            .zip(self.cpu_times)
            .for_each(|(now, then)| *now -= then);
        let [user, nice, system, _, _, irq, softirq, steal] = spent;
        let busy = (user + nice + system + irq + softirq) * 1e9;
        let wait = busiest.values().map(|b| b.1).max().unwrap_or(0);
        Load {
            wait: wait as f64 / nanos,
            steal: steal * 1e9 / nanos,
            others: (busy - ours).max(0.0) / nanos,
            backend_cpu: backend as f64 / nanos,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_spins_is_seen() {
        let watch = Watch::start(Vec::new());
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {}
        let load = watch.end();
        assert!(load.backend_cpu > 0.1 && load.wait == 0.0, "{load:?}");
    }
}
