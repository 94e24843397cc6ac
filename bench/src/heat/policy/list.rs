//! The order that keys are in, for policies that keep them in one.

/// Keys in an order, each of them once; where one is it knows itself.
pub(super) struct List {
    /// The two neighbours of each key, and of what is before the first and after the last.
    links: Vec<Option<(u32, u32)>>,
    ends: u32,
    len: usize,
}

impl List {
    /// For the keys below `keys`.
    pub(super) fn new(keys: usize) -> Self {
        let ends = u32::try_from(keys).expect("keys are numbered by u32");
        let mut links = vec![None; keys + 1];
        links[keys] = Some((ends, ends));
        Self { links, ends, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn contains(&self, key: u32) -> bool {
        self.links[key as usize].is_some()
    }

    pub(super) fn push_front(&mut self, key: u32) {
        debug_assert!(!self.contains(key), "a key is in a list once");
        let first = self.around(self.ends).1;
        self.links[key as usize] = Some((self.ends, first));
        self.links_of(self.ends).1 = key;
        self.links_of(first).0 = key;
        self.len += 1;
    }

    /// Takes it out. Returns whether it was there.
    pub(super) fn remove(&mut self, key: u32) -> bool {
        let Some((before, after)) = self.links[key as usize].take() else { return false };
        self.links_of(before).1 = after;
        self.links_of(after).0 = before;
        self.len -= 1;
        true
    }

    pub(super) fn pop_back(&mut self) -> Option<u32> {
        let last = self.back()?;
        self.remove(last);
        Some(last)
    }

    pub(super) fn move_to_front(&mut self, key: u32) {
        self.remove(key);
        self.push_front(key);
    }

    pub(super) fn back(&self) -> Option<u32> {
        self.before(self.ends)
    }

    /// The one that is nearer to the front.
    pub(super) fn before(&self, key: u32) -> Option<u32> {
        Some(self.around(key).0).filter(|key| *key != self.ends)
    }

    fn around(&self, key: u32) -> (u32, u32) {
        self.links[key as usize].expect("asked of what is in the list")
    }

    fn links_of(&mut self, key: u32) -> &mut (u32, u32) {
        self.links[key as usize].as_mut().expect("neighbours are in the list")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_leave_in_the_order_they_came_but_for_those_that_were_moved() {
        let mut list = List::new(5);
        for key in [3, 0, 4, 1] {
            list.push_front(key);
        }
        list.move_to_front(0);
        assert!(list.remove(4) && !list.remove(4) && !list.remove(2));
        assert_eq!(
            (list.len(), list.back(), list.before(3), list.before(0)),
            (3, Some(3), Some(1), None)
        );
        let left: Vec<_> = std::iter::from_fn(|| list.pop_back()).collect();
        assert_eq!(left, [3, 1, 0]);
        assert_eq!((list.len(), list.back(), list.contains(3)), (0, None, false));
    }
}
