//! Channels with a driver each: attached and idle, woken one by one, all sending a little.

use crate::emulator::Emulator;
use chanio_emu::frontend::{Client, ClientOptions, HEADER};
use chanio_emu::port::nofile_limit;
use chanio_emu::ring::driver::SharedArea;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

pub struct Options {
    pub drivers: u32,
    pub workers: u32,
    pub rate: u32,
    pub kicks: u32,
}

/// Drivers that poll, with tiny rings.
const CLIENT: ClientOptions = ClientOptions {
    queue_size: 8,
    buffer_size: 128,
    features: chanio_emu::vhost::features::EVENT_IDX,
    calls: false,
};
/// Threads that attach drivers.
const CONNECTORS: usize = 4;
/// Seconds that idleness and traffic last.
const LASTS: Duration = Duration::from_secs(5);
/// After that a packet counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two kicks, so that the worker is asleep again.
const PAUSE: Duration = Duration::from_micros(300);

pub fn run(options: &Options) {
    let count = options.drivers as usize;
    // Drivers on one CPU, the emulator on the others: on one alone a worker would be measured that
    // waits for the driver that waits for it.
    let pinned = pin(|cpu| cpu != 0);
    // A connection and a kick each, at both ends.
    nofile_limit(2 * u64::from(options.drivers) + 100);
    let emulator = Emulator::start(options.drivers, "off", options.workers);
    emulator.chanio(&format!("channel add ch --count {count}"));
    std::thread::sleep(Duration::from_secs(1));
    if pinned {
        pin(|cpu| cpu == 0);
    }

    let (memory, threads) = (emulator.memory(), emulator.threads());
    let (started, cpu) = (Instant::now(), emulator.cpu());
    let mut clients = connect(&emulator, count);
    let connecting = started.elapsed().as_secs_f64();
    let cpu = emulator.cpu() - cpu;
    let full = emulator.memory();
    println!(
        "{count} channels with a driver each, {} workers",
        options.workers
    );
    println!(
        "  attaching all                  {connecting:.2} s, {cpu:.2} s of them the emulator's"
    );
    println!(
        "  resident memory                {:.1} MiB before, {:.1} MiB after: {:.2} KiB a channel, \
         {:.2} of them the emulator's own",
        memory.rss as f64 / 1024.0,
        full.rss as f64 / 1024.0,
        (full.rss - memory.rss) as f64 / count as f64,
        (full.anonymous - memory.anonymous) as f64 / count as f64
    );
    println!(
        "  threads                        {threads} before, {} after",
        emulator.threads()
    );

    let before = emulator.cpu();
    std::thread::sleep(LASTS);
    let idle = (emulator.cpu() - before) / LASTS.as_secs_f64();
    println!(
        "  idle for {LASTS:?}                    {:.2} % of a core",
        100.0 * idle
    );

    bare_wake(options.kicks, pinned);
    wake(&mut clients, options.kicks);
    bare_wake(options.kicks, pinned);
    chatter(&emulator, &mut clients, options.rate);
    let log = emulator.log();
    if log.contains("WARN") || log.contains("ERROR") {
        println!("{log}");
    }
    drop(clients);
    emulator.stop();
}

fn connect(emulator: &Emulator, count: usize) -> Vec<Client> {
    let areas = SharedArea::many(Client::AREA, CLIENT.area_bytes(), count).expect("memory");
    let waiting = Mutex::new(areas.into_iter().enumerate());
    let attached: Mutex<Vec<(usize, Client)>> = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTORS {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("unharmed").next();
                    let Some((i, area)) = next else { return };
                    // Channels count from 1.
                    let client = Client::connect_in(&emulator.socket(i + 1), CLIENT, area);
                    let client =
                        client.unwrap_or_else(|e| panic!("driver {i}: {e}\n{}", emulator.log()));
                    attached.lock().expect("unharmed").push((i, client));
                }
            });
        }
    });
    let mut attached = attached.into_inner().expect("unharmed");
    attached.sort_by_key(|(i, _)| *i);
    attached.into_iter().map(|(_, client)| client).collect()
}

/// A frame to channel `to`, numbered from 0: addresses as the emulator gives them out.
fn frame(from: usize, to: usize, number: u32) -> [u8; 64] {
    let mac = |i: usize| {
        let [.., a, b, c] = (i as u32 + 1).to_be_bytes();
        [0x02, 0xca, 0, a, b, c]
    };
    let mut frame = [0; 64];
    frame[..6].copy_from_slice(&mac(to));
    frame[6..12].copy_from_slice(&mac(from));
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_le_bytes());
    frame
}

/// Keeps this thread, and what it starts, to the CPUs that are wanted; false if there are none.
fn pin(wanted: impl Fn(usize) -> bool) -> bool {
    // Once: it counts only those that this thread is kept to.
    static CPUS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
    let cpus = *CPUS;
    let mut set = CpuSet::new();
    let all = (0..cpus).filter(|cpu| wanted(*cpu));
    let count = all.filter(|cpu| set.set(*cpu).is_ok()).count();
    count > 0 && cpus > 1 && sched_setaffinity(Pid::from_raw(0), &set).is_ok()
}

/// What this machine takes to wake a thread that sleeps in epoll and does nothing but say so.
fn bare_wake(kicks: u32, pinned: bool) {
    let (epoll, event) = (Epoll::new(EpollCreateFlags::empty()), EventFd::new());
    let (epoll, event) = (epoll.expect("epoll"), event.expect("eventfd"));
    let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
    epoll
        .add(&event, EpollEvent::new(edges, 0))
        .expect("watched");
    let woken = AtomicU32::new(0);
    let mut times = Vec::with_capacity(kicks as usize);
    let (ready, wait) = channel();
    std::thread::scope(|scope| {
        let (epoll, woken) = (&epoll, &woken);
        scope.spawn(move || {
            if pinned {
                pin(|cpu| cpu != 0);
            }
            drop(ready);
            while woken.load(Ordering::Relaxed) < kicks {
                let n = epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE);
                woken.fetch_add(n.unwrap_or(0) as u32, Ordering::Release);
            }
        });
        let _: Result<(), _> = wait.recv();
        for number in 0..kicks {
            std::thread::sleep(PAUSE);
            let started = Instant::now();
            event.write(1).expect("kick");
            while woken.load(Ordering::Acquire) == number {
                std::hint::spin_loop();
            }
            times.push(started.elapsed());
        }
    });
    println!("  a bare thread woken            {}", percentiles(times));
}

/// One driver after the other sends a frame to its neighbour while all else sleeps.
fn wake(clients: &mut [Client], kicks: u32) {
    let mut times = Vec::with_capacity(kicks as usize);
    let mut received = Vec::new();
    // A step that has no common divisor with the number of channels comes by all of them.
    let step = 7_919 % clients.len();
    let mut from = 0;
    let (mut lost, mut asleep) = (0, 0);
    for number in 0..kicks {
        from = (from + step) % clients.len();
        let to = (from + 1) % clients.len();
        std::thread::sleep(PAUSE);
        let frame = frame(from, to, number);
        assert!(
            clients[from].send(&frame).expect("send"),
            "the ring is empty"
        );
        let started = Instant::now();
        asleep += u32::from(clients[from].flush().expect("kick"));
        loop {
            if clients[to].receive(&mut received).expect("receive") {
                assert_eq!(received[..], frame[..]);
                times.push(started.elapsed());
                break;
            }
            if started.elapsed() > PATIENCE {
                lost += 1;
                break;
            }
            std::hint::spin_loop();
        }
    }
    println!(
        "  {kicks} kicks, {asleep} of them wanted    {}, {lost} lost",
        percentiles(times)
    );
}

/// All drivers send at their rate, spread evenly, each to its neighbour.
fn chatter(emulator: &Emulator, clients: &mut [Client], rate: u32) {
    let count = clients.len();
    let interval = Duration::from_secs(1) / (rate * count as u32);
    let total = (LASTS.as_secs_f64() / interval.as_secs_f64()) as u32;
    // Where to look for what: the oldest few, since what comes is almost in order.
    let mut under_way: VecDeque<usize> = VecDeque::new();
    let mut sent_at: Vec<Instant> = Vec::with_capacity(total as usize);
    let mut last_seen = vec![None; count];
    let mut times = Vec::with_capacity(total as usize);
    let (mut refused, mut kicked, mut late) = (0, 0u32, Duration::ZERO);
    let mut received = Vec::new();
    let (started, cpu) = (Instant::now(), emulator.cpu());
    loop {
        let sent = sent_at.len() as u32;
        let now = started.elapsed();
        if sent < total && now >= interval * sent {
            late = late.max(now - interval * sent);
            let from = sent as usize % count;
            let to = (from + 1) % count;
            sent_at.push(Instant::now());
            if clients[from].send(&frame(from, to, sent)).expect("send") {
                kicked += u32::from(clients[from].flush().expect("kick"));
                under_way.push_back(to);
            } else {
                refused += 1;
            }
        }
        let mut i = 0;
        while i < under_way.len().min(16) {
            let to = under_way[i];
            if clients[to].receive(&mut received).expect("receive") {
                let number = [received[14], received[15], received[16], received[17]];
                let number = u32::from_le_bytes(number);
                assert_eq!((number as usize + 1) % count, to, "for somebody else");
                let before = last_seen[to].replace(number);
                assert!(before < Some(number), "out of order");
                times.push(sent_at[number as usize].elapsed());
                under_way.remove(i);
            } else {
                i += 1;
            }
        }
        if sent == total && (under_way.is_empty() || now > LASTS + PATIENCE) {
            break;
        }
    }
    let sent = sent_at.len();
    let took = started.elapsed();
    let cpu = (emulator.cpu() - cpu) / took.as_secs_f64();
    println!(
        "  all send {rate}/s for {LASTS:?}          {sent} sent, {} lost, {refused} refused; {:.0} % \
         of a core; {:.0} % were kicks; sender late by {late:?} at most",
        under_way.len(),
        100.0 * cpu,
        100.0 * f64::from(kicked) / sent as f64,
    );
    println!("  one-way time                   {}", percentiles(times));
    debug_assert!(HEADER < CLIENT.buffer_size as usize);
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| -> f64 {
        let i = (times.len() as f64 * share) as usize;
        let time = times.get(i.min(times.len().saturating_sub(1)));
        time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    };
    format!(
        "p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, max {:.0} us",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}
