//! The uses of one approval: how many calls it serves, and which claims hold one.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uses {
    /// How many calls it serves in all.
    pub(super) allowed: u32,
    /// The number of claims so far. It identifies the latest claim.
    pub(super) turn: u32,
    /// The turns of the claims that hold a use, in ascending order. A release removes its own, so a
    /// claim gives back one use, once.
    pub(super) held: Vec<u32>,
}

impl Uses {
    pub(super) fn new(allowed: u32) -> Self {
        Self { allowed, turn: 0, held: Vec::new() }
    }

    /// The number of calls that it still serves.
    pub(super) fn left(&self) -> u32 {
        self.allowed.saturating_sub(u32::try_from(self.held.len()).unwrap_or(u32::MAX))
    }

    /// Takes a use, and returns the turn of the claim. `None` if none is left.
    pub(super) fn take(&mut self) -> Option<u32> {
        // The turns end after four billion failed calls within one `ttl`.
        let turn = self.turn.checked_add(1).filter(|_| self.left() > 0)?;
        self.turn = turn;
        self.held.push(turn);
        Some(turn)
    }

    /// Gives the use of a claim back. Returns `false` if the claim holds none.
    pub(super) fn give_back(&mut self, turn: u32) -> bool {
        let held = self.held.binary_search(&turn);
        held.map(|at| self.held.remove(at)).is_ok()
    }
}
