//! All or nothing: what was done is undone in reverse order when a later step fails.

use crate::DeviceError;

type Step<C> = Box<dyn FnOnce(&mut C) -> Result<(), DeviceError>>;

/// How to undo what was done so far.
pub(super) struct Undo<C> {
    steps: Vec<(String, Step<C>)>,
}

impl<C> Undo<C> {
    /// A step was done; this undoes it.
    pub(super) fn push(
        &mut self,
        what: impl Into<String>,
        step: impl FnOnce(&mut C) -> Result<(), DeviceError> + 'static,
    ) {
        self.steps.push((what.into(), Box::new(step)));
    }
}

/// Does all of the work or, where a step fails, undoes what it has pushed and returns the failure.
/// What cannot be undone is told with it.
pub(super) fn all_or_nothing<C, T>(
    context: &mut C,
    work: impl FnOnce(&mut C, &mut Undo<C>) -> Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    let mut undo = Undo { steps: Vec::new() };
    let error = match work(context, &mut undo) {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    let mut left = Vec::new();
    for (what, step) in undo.steps.into_iter().rev() {
        if let Err(why) = step(context) {
            left.push(format!("{what}: {why}"));
        }
    }
    if left.is_empty() {
        return Err(error);
    }
    Err(DeviceError::Refused {
        reason: format!("{error}; could not be undone: {}", left.join("; ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: &str) -> DeviceError {
        DeviceError::Refused {
            reason: reason.into(),
        }
    }

    #[test]
    fn steps_are_undone_in_reverse_order_and_only_after_a_failure() {
        let mut done: Vec<u32> = Vec::new();
        let work = |fail: bool| {
            move |done: &mut Vec<u32>, undo: &mut Undo<Vec<u32>>| {
                for n in 1..=3 {
                    done.push(n);
                    undo.push(n.to_string(), move |done: &mut Vec<u32>| {
                        assert_eq!(done.pop(), Some(n));
                        Ok(())
                    });
                }
                if fail { Err(refused("full")) } else { Ok(()) }
            }
        };
        assert!(all_or_nothing(&mut done, work(true)).is_err());
        assert!(done.is_empty());
        all_or_nothing(&mut done, work(false)).unwrap();
        assert_eq!(done, [1, 2, 3]);
    }

    #[test]
    fn what_cannot_be_undone_is_told() {
        let failed: Result<(), _> = all_or_nothing(&mut (), |(), undo: &mut Undo<()>| {
            undo.push("removing a", |()| Err(refused("busy")));
            undo.push("removing b", |()| Ok(()));
            Err(refused("full"))
        });
        assert_eq!(
            failed.unwrap_err().to_string(),
            "full; could not be undone: removing a: busy"
        );
    }
}
