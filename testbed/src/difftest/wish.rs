//! Random decisions.

/// Random decisions that shrink to "no".
#[derive(Clone, Copy, Debug)]
pub struct Wish(pub u64);

impl Wish {
    /// Yes or no.
    pub fn yes(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Yes one time in `n`.
    pub fn seldom(&mut self, n: u64) -> bool {
        self.below(n) == n - 1
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        let value = self.0 % n;
        self.0 /= n;
        value
    }
}
