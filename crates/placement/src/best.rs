//! The few smallest of many, kept sorted.

/// Keeps the `limit` smallest items offered; memory stays at `limit`.
pub struct Best<T> {
    limit: usize,
    items: Vec<T>,
}

impl<T: Ord> Best<T> {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            items: Vec::new(),
        }
    }

    pub fn offer(&mut self, item: T) {
        if self.items.len() >= self.limit && self.items.last().is_none_or(|last| *last <= item) {
            return;
        }
        let at = self.items.partition_point(|kept| *kept <= item);
        self.items.insert(at, item);
        self.items.truncate(self.limit);
    }

    /// What was kept, smallest first.
    pub fn into_sorted(self) -> Vec<T> {
        self.items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_are_kept_in_order() {
        let mut best = Best::new(3);
        for n in [5, 1, 4, 1, 3, 9] {
            best.offer(n);
        }
        assert_eq!(best.into_sorted(), [1, 1, 3]);
    }

    #[test]
    fn a_limit_of_zero_keeps_nothing() {
        let mut best = Best::new(0);
        best.offer(1);
        assert!(best.into_sorted().is_empty());
    }
}
