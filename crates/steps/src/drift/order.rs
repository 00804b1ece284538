//! Puts statements into an order in which each finds what it needs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Nodes so that `edges` (before, after) are kept; among those that are free, the one with the smallest key comes first. A circle, as
/// between a base type and its functions, is cut at its smallest key.
pub fn ordered<K: Ord>(nodes: &BTreeSet<usize>, edges: &[(usize, usize)], key: impl Fn(usize) -> K) -> Vec<usize> {
    let mut waits: BTreeMap<usize, BTreeSet<usize>> = nodes.iter().map(|node| (*node, BTreeSet::new())).collect();
    let mut frees: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (before, after) in edges {
        if before != after
            && nodes.contains(before)
            && let Some(waits) = waits.get_mut(after)
            && waits.insert(*before)
        {
            frees.entry(*before).or_default().push(*after);
        }
    }
    let mut free: BinaryHeap<Reverse<(K, usize)>> =
        waits.iter().filter(|(_, waits)| waits.is_empty()).map(|(node, _)| Reverse((key(*node), *node))).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(first) = waits.keys().next() {
        let node = match free.pop() {
            Some(Reverse((_, node))) => node,
            None => circle(&waits, *first).into_iter().min_by_key(|node| (key(*node), *node)).unwrap_or(*first),
        };
        // One that a cut has freed may stand in the heap too.
        if waits.remove(&node).is_none() {
            continue;
        }
        order.push(node);
        for after in frees.remove(&node).unwrap_or_default() {
            if let Some(left) = waits.get_mut(&after)
                && left.remove(&node)
                && left.is_empty()
            {
                free.push(Reverse((key(after), after)));
            }
        }
    }
    order
}

/// The nodes of a circle that one waits for, where each waits for another.
fn circle(waits: &BTreeMap<usize, BTreeSet<usize>>, from: usize) -> Vec<usize> {
    let mut path = vec![from];
    let mut at = from;
    while let Some(next) = waits.get(&at).and_then(|waits| waits.first()) {
        if let Some(start) = path.iter().position(|node| node == next) {
            return path.split_off(start);
        }
        path.push(*next);
        at = *next;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::ordered;

    #[test]
    fn needs_come_before_keys_and_circles_are_cut() {
        let nodes = (0..4).collect();
        assert_eq!(ordered(&nodes, &[(3, 0), (0, 1)], |node| node), [2, 3, 0, 1]);
        assert_eq!(ordered(&nodes, &[(1, 2), (2, 1), (2, 0)], |node| node), [3, 1, 2, 0]);
        assert_eq!(ordered(&nodes, &[(0, 9), (2, 2)], |node| 9 - node), [3, 2, 1, 0]);
    }
}
