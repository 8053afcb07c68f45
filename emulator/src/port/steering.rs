//! Which queue pair of a port a packet goes to, and what hash its driver is told: what control
//! has set, or the driver after it.

use chanio_model::rss::{HashTypes, Rss, RssKey, RssSettings};
use chanio_model::steer::QueueRules;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Settings of one port. Without any, packets are spread by a hash of the emulator's own.
#[derive(Debug, Default)]
pub struct Steering {
    /// Lets ports without settings do without the lock.
    any: AtomicBool,
    state: RwLock<State>,
    /// Rules that come before any hash, and whether there are some.
    any_rules: AtomicBool,
    rules: RwLock<Arc<QueueRules>>,
}

#[derive(Debug, Default)]
struct State {
    /// What holds when no driver has asked for anything else.
    control: Option<Arc<Rss>>,
    /// By which packets are spread.
    spread: Option<Arc<Rss>>,
    /// Whose hash is reported.
    report: Option<Arc<Rss>>,
}

impl Steering {
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.write();
        change(&mut state);
        let any = state.spread.is_some() || state.report.is_some();
        self.any.store(any, Ordering::Relaxed);
    }

    fn look(&self, look: impl FnOnce(&State) -> Option<Arc<Rss>>) -> Option<Arc<Rss>> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        look(&self.state.read())
    }

    /// By what packets are spread; `None`: the emulator's own hash.
    pub fn spread(&self) -> Option<Arc<Rss>> {
        self.look(|state| state.spread.clone())
    }

    /// Rules that choose a packet's queue before its hash does; `None`: there are none.
    pub fn rules(&self) -> Option<Arc<QueueRules>> {
        let any = self.any_rules.load(Ordering::Relaxed);
        any.then(|| self.rules.read().clone())
    }

    /// Has these rules and no others.
    pub fn set_rules(&self, rules: QueueRules) {
        let any = !rules.is_empty();
        *self.rules.write() = Arc::new(rules);
        self.any_rules.store(any, Ordering::Relaxed);
    }

    /// What hash is reported; `None`: none.
    pub fn report(&self) -> Option<Arc<Rss>> {
        self.look(|state| state.report.clone())
    }

    /// Control's settings, `None` to have none. They hold at once, whatever the driver has asked
    /// for, and again whenever a driver goes.
    pub fn set_by_control(&self, settings: Option<RssSettings>) {
        let rss = settings.map(|settings| Arc::new(Rss::new(settings)));
        self.change(|state| {
            *state = State {
                control: rss.clone(),
                spread: rss.clone(),
                report: rss,
            };
        });
    }

    /// The driver's settings.
    pub fn set_by_driver(&self, settings: RssSettings) {
        let rss = Arc::new(Rss::new(settings));
        self.change(|state| (state.spread, state.report) = (Some(rss.clone()), Some(rss)));
    }

    /// What the driver wants to be told; packets are spread as before.
    pub fn report_by_driver(&self, types: HashTypes, key: RssKey) {
        let rss = Arc::new(Rss::new(RssSettings::only_hash(types, key)));
        self.change(|state| state.report = Some(rss));
    }

    /// The driver leaves it to the device how packets are spread.
    pub fn spread_by_device(&self) {
        self.change(|state| state.spread = state.control.clone());
    }

    /// The driver is gone or has reset the device.
    pub fn forget_driver(&self) {
        self.change(|state| {
            state.spread = state.control.clone();
            state.report = state.control.clone();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(queue: u16) -> RssSettings {
        let table = vec![queue];
        RssSettings::new(HashTypes::ALL, RssKey::MICROSOFT, table, 0, 8).unwrap()
    }

    fn spread(steering: &Steering) -> Option<u16> {
        Some(steering.spread()?.settings().table()[0])
    }

    #[test]
    fn the_drivers_wish_lasts_as_long_as_the_driver() {
        let steering = Steering::default();
        assert!(steering.spread().is_none() && steering.report().is_none());
        steering.set_by_control(Some(settings(1)));
        assert_eq!(spread(&steering), Some(1));
        steering.set_by_driver(settings(2));
        assert_eq!(spread(&steering), Some(2));
        steering.spread_by_device();
        assert_eq!(spread(&steering), Some(1));
        assert_eq!(steering.report().unwrap().settings().table(), [2]);
        steering.report_by_driver(HashTypes::TCP_V4, RssKey::MICROSOFT);
        assert_eq!(spread(&steering), Some(1));
        let types = steering.report().unwrap().settings().types();
        assert_eq!(types, HashTypes::TCP_V4);
        steering.set_by_driver(settings(3));
        steering.forget_driver();
        assert_eq!(spread(&steering), Some(1));
        assert_eq!(steering.report().unwrap().settings().table(), [1]);
        steering.set_by_control(None);
        assert!(steering.spread().is_none() && steering.report().is_none());
    }
}
