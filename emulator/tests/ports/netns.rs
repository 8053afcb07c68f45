//! Network namespaces that live as long as a test, and running tools in them.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// A namespace: a thread that has one of its own and runs what it is given, as do the processes
/// that are started there.
pub struct Netns {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: String,
}

impl Netns {
    /// `None`, with the reason on standard output, where that is not allowed; in CI it has to be.
    pub fn new() -> Option<Self> {
        let (jobs, todo) = channel::<Job>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let entered = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
            let path = format!(
                "/proc/{}/task/{}/ns/net",
                nix::unistd::getpid(),
                nix::unistd::gettid()
            );
            tell.send(entered.map(|()| path)).unwrap();
            todo.iter().for_each(|job| job());
        });
        match told.recv().unwrap() {
            Ok(path) => {
                let netns = Self {
                    jobs: Some(jobs),
                    thread: Some(thread),
                    path,
                };
                netns.ip("link set lo up");
                Some(netns)
            }
            Err(errno) => {
                cannot_run(&format!("no network namespace of our own: {errno}"));
                None
            }
        }
    }

    /// Where others find it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Runs this in there, and panics if it does.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(work)()
    }

    /// Begins to run this in there; the result is what the function returned waits for.
    pub fn start<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl FnOnce() -> T {
        let (tell, told) = channel();
        // In a thread of its own, which inherits the namespace, so that work may overlap.
        let job = move || {
            std::thread::spawn(move || tell.send(work()));
        };
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        move || told.recv().expect("the work in the namespace panicked")
    }

    /// Runs a tool in there to its end.
    pub fn output(&self, tool: &str, args: &str) -> Output {
        let (name, words) = (tool.to_owned(), words(args));
        self.run(move || {
            let output = Command::new(&name)
                .args(words)
                .stdin(Stdio::null())
                .output();
            output.unwrap_or_else(|e| panic!("{name}: {e}"))
        })
    }

    /// As [`Netns::output`], which has to succeed; returns its standard output.
    pub fn tool(&self, tool: &str, args: &str) -> String {
        let output = self.output(tool, args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{tool} {args}: {err}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn ip(&self, args: &str) -> String {
        self.tool("ip", args)
    }

    /// What `ip -j` says.
    pub fn ip_json(&self, args: &str) -> serde_json::Value {
        serde_json::from_str(&self.ip(&format!("-j {args}"))).unwrap()
    }

    /// Names of all netdevs but `lo`.
    pub fn netdevs(&self) -> Vec<String> {
        let links = self.ip_json("link show");
        let names = links
            .as_array()
            .unwrap()
            .iter()
            .map(|l| l["ifname"].as_str().unwrap().to_owned());
        // Kernels with these built in put them into every new namespace.
        let fallback = [
            "lo", "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip_vti0",
        ];
        names.filter(|n| !fallback.contains(&n.as_str())).collect()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.jobs = None;
        let _ = self.thread.take().unwrap().join();
    }
}

fn words(args: &str) -> Vec<String> {
    args.split_whitespace().map(str::to_owned).collect()
}

/// Whether the tool is there; if not, as [`Netns::new`].
pub fn have(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let there = command.status().is_ok();
    if !there {
        cannot_run(&format!("`{tool}` is not installed"));
    }
    there
}

/// Says why a test does not run; CI must be able to run all.
pub fn cannot_run(why: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "in CI every test has to run: {why}"
    );
    println!("not run: {why}");
}

/// Waits up to five seconds for this to become true.
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !is() {
        assert!(std::time::Instant::now() < end, "in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
