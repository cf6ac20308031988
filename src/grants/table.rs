//! A persistent hash table: each change returns a new table, which shares all but a few nodes with
//! the old one. So a check reads a whole table while an update builds the next.

use std::array;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// A value that knows its key.
pub(super) trait Keyed {
    fn key(&self) -> &str;
}

/// A trie over the hashes of the keys, four bits per level. Finding, adding and removing a value
/// take O(log n), and a change copies only the nodes on its path.
pub(super) struct Table<V> {
    root: Arc<Node<V>>,
    hasher: RandomState,
}

const CHILDREN: usize = 16;
const BITS: u32 = 4;
/// At this depth all bits of the hash are used up, so a leaf grows instead of becoming a branch.
const DEEPEST: u32 = u64::BITS / BITS;
/// The number of values that a leaf holds before it becomes a branch.
const LEAF_CAPACITY: usize = 8;

enum Node<V> {
    Leaf(Vec<Arc<V>>),
    Branch([Arc<Node<V>>; CHILDREN]),
}

impl<V: Keyed> Table<V> {
    pub(super) fn new() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), hasher: RandomState::default() }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<V>> {
        let hash = self.hash(key);
        let (mut node, mut depth) = (&*self.root, 0);
        loop {
            match node {
                Node::Leaf(held) => return held.iter().find(|value| value.key() == key),
                Node::Branch(children) => node = children.get(slot(hash, depth))?,
            }
            depth += 1;
        }
    }

    /// The table with `value`, in place of a former value with the same key.
    pub(super) fn with(&self, value: V) -> Self {
        let value = Arc::new(value);
        let hash = self.hash(value.key());
        self.changed(self.put(&self.root, hash, 0, value))
    }

    pub(super) fn without(&self, key: &str) -> Self {
        self.changed(Self::drop_from(&self.root, self.hash(key), 0, key))
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&V)) {
        let mut left = vec![&*self.root];
        while let Some(node) = left.pop() {
            match node {
                Node::Leaf(held) => held.iter().for_each(|value| visit(value)),
                Node::Branch(children) => left.extend(children.iter().map(|child| &**child)),
            }
        }
    }

    fn changed(&self, root: Arc<Node<V>>) -> Self {
        Self { root, hasher: self.hasher.clone() }
    }

    fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    fn put(&self, node: &Node<V>, hash: u64, depth: u32, value: Arc<V>) -> Arc<Node<V>> {
        Arc::new(match node {
            Node::Leaf(held) => {
                let mut held = others(held, value.key());
                held.push(value);
                if held.len() <= LEAF_CAPACITY || depth == DEEPEST {
                    Node::Leaf(held)
                } else {
                    self.split(&held, depth)
                }
            }
            Node::Branch(children) => {
                let mut children = children.clone();
                if let Some(child) = children.get_mut(slot(hash, depth)) {
                    *child = self.put(child, hash, depth + 1, value);
                }
                Node::Branch(children)
            }
        })
    }

    fn split(&self, held: &[Arc<V>], depth: u32) -> Node<V> {
        Node::Branch(array::from_fn(|index| {
            let here = held.iter().filter(|value| slot(self.hash(value.key()), depth) == index);
            Arc::new(Node::Leaf(here.cloned().collect()))
        }))
    }

    fn drop_from(node: &Node<V>, hash: u64, depth: u32, key: &str) -> Arc<Node<V>> {
        Arc::new(match node {
            Node::Leaf(held) => Node::Leaf(others(held, key)),
            Node::Branch(children) => {
                let mut children = children.clone();
                if let Some(child) = children.get_mut(slot(hash, depth)) {
                    *child = Self::drop_from(child, hash, depth + 1, key);
                }
                joined(&children).map_or(Node::Branch(children), Node::Leaf)
            }
        })
    }
}

/// The values of a branch, if they fill at most half a leaf. Half, so that a table of alternating
/// changes does not split and join each time.
fn joined<V>(children: &[Arc<Node<V>>; CHILDREN]) -> Option<Vec<Arc<V>>> {
    let mut all = Vec::new();
    for child in children {
        match &**child {
            Node::Leaf(held) if all.len() + held.len() <= LEAF_CAPACITY / 2 => all.extend(held.iter().cloned()),
            _ => return None,
        }
    }
    Some(all)
}

fn others<V: Keyed>(held: &[Arc<V>], key: &str) -> Vec<Arc<V>> {
    held.iter().filter(|value| value.key() != key).cloned().collect()
}

fn slot(hash: u64, depth: u32) -> usize {
    (hash.checked_shr(depth * BITS).unwrap_or_default() % CHILDREN as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    struct Entry(String, u32);

    impl Keyed for Entry {
        fn key(&self) -> &str {
            &self.0
        }
    }

    fn contents(table: &Table<Entry>) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        table.for_each(|entry| assert_eq!(found.insert(entry.0.clone(), entry.1), None, "each key once"));
        found
    }

    #[test]
    fn it_behaves_like_a_map() {
        let mut table = Table::new();
        let mut map = BTreeMap::new();
        let before = |table: &Table<Entry>| Table { root: Arc::clone(&table.root), hasher: table.hasher.clone() };
        for step in 0..4000_u32 {
            let key = format!("k{}", step.wrapping_mul(2_654_435_761) % 700);
            let (old, expected) = (before(&table), map.clone());
            if step % 3 == 0 {
                table = table.without(&key);
                map.remove(&key);
            } else {
                table = table.with(Entry(key.clone(), step));
                map.insert(key.clone(), step);
            }
            assert_eq!(table.get(&key).map(|entry| entry.1), map.get(&key).copied());
            if step % 500 == 0 {
                assert_eq!(contents(&old), expected, "the former table does not change");
            }
        }
        assert_eq!(contents(&table), map);
        for key in map.keys() {
            assert!(table.get(key).is_some());
            table = table.without(key);
        }
        assert!(matches!(&*table.root, Node::Leaf(held) if held.is_empty()), "an empty table is one leaf");
    }
}
