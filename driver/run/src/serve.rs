//! The loop that answers the program's calls, until the program and all that it started are gone.

use crate::call::{Outcome, carry_out};
use crate::notify::{Listener, Stopped};
use crate::played::Elsewhere;
use crate::sockets::Sockets;
use chanio_netlink::kernel::Kernel;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often the kernel's part is asked for news while somebody listens to a group.
const NEWS: Duration = Duration::from_millis(20);

/// A read that waits for something to come.
struct Waiting {
    stopped: Stopped,
    until: Option<Instant>,
}

/// Answers until nobody is left, and gives the kernel's part back.
pub fn serve<K: Kernel>(
    listener: OwnedFd,
    kernel: K,
    elsewhere: Option<Elsewhere>,
) -> io::Result<K> {
    let mut server = Server {
        listener: Listener::new(listener),
        sockets: Sockets::default(),
        waiting: Vec::new(),
        kernel,
        elsewhere,
    };
    while let Some(call) = server.wait()? {
        if call {
            if let Some(stopped) = server.listener.receive()? {
                server.answer(&stopped)?;
            }
        } else {
            server.sockets.reap();
        }
        server.sockets.receive_far();
        for notification in server.kernel.notifications() {
            server.sockets.notify(&notification)?;
        }
        server.wake()?;
    }
    Ok(server.kernel)
}

struct Server<K> {
    listener: Listener,
    sockets: Sockets,
    waiting: Vec<Waiting>,
    kernel: K,
    elsewhere: Option<Elsewhere>,
}

impl<K: Kernel> Server<K> {
    /// Waits for a call, a closed socket or the time; none when nobody is left to make one.
    fn wait(&self) -> io::Result<Option<bool>> {
        let now = Instant::now();
        let deadlines = self.waiting.iter().filter_map(|w| w.until);
        let news = self.sockets.any_listens().then(|| now + NEWS);
        let timeout = match deadlines.chain(news).min() {
            // Rounded up: not to come back just before the time.
            Some(until) => {
                let millis = until.saturating_duration_since(now).as_millis() + 1;
                PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let listener = self.listener.fd();
        let mut fds = vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.sockets.poll_fds());
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let told = fds[0].revents().unwrap_or(PollFlags::empty());
        if told.contains(PollFlags::POLLIN) {
            return Ok(Some(true));
        }
        Ok(if told.contains(PollFlags::POLLHUP) {
            None
        } else {
            Some(false)
        })
    }

    fn answer(&mut self, stopped: &Stopped) -> io::Result<()> {
        let outcome = carry_out(
            stopped,
            &mut self.sockets,
            &mut self.kernel,
            &mut self.elsewhere,
        );
        // A thread that died meanwhile may have left its number to another.
        if !self.listener.waits(stopped) {
            return Ok(());
        }
        match outcome {
            Ok(Outcome::Done(value)) => self.listener.finish(stopped, Ok(value)),
            Ok(Outcome::Resume) => self.listener.resume(stopped),
            Ok(Outcome::File {
                file,
                number,
                close_on_exec,
            }) => self
                .listener
                .finish_with_file(stopped, &file, number, close_on_exec),
            Ok(Outcome::Wait(until)) => {
                self.waiting.push(Waiting {
                    stopped: *stopped,
                    until,
                });
                Ok(())
            }
            Err(errno) => self.listener.finish(stopped, Err(errno)),
        }
    }

    /// Reads that can go on, go on.
    fn wake(&mut self) -> io::Result<()> {
        let now = Instant::now();
        for Waiting { stopped, until } in std::mem::take(&mut self.waiting) {
            if until.is_some_and(|until| until <= now) {
                self.listener.finish(&stopped, Err(Errno::EAGAIN))?;
                continue;
            }
            self.answer(&stopped)?;
            // A read that waits once more still has its first deadline.
            if let Some(again) = self
                .waiting
                .last_mut()
                .filter(|w| w.stopped.id == stopped.id)
            {
                again.until = until;
            }
        }
        Ok(())
    }
}
