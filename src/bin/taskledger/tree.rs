//! Tasks as trees: what ran within a scope stands below it.

use std::collections::HashMap;

/// A task of a tree, in the order in which it is printed.
#[derive(Debug)]
pub(crate) struct Leaf<T> {
    /// What is drawn before its id.
    pub(crate) branch: String,
    pub(crate) task: T,
}

/// A task, its id and that of the scope that it ran within, and what orders it among its siblings.
#[derive(Debug)]
pub(crate) struct Node<T> {
    pub(crate) id: Vec<u8>,
    pub(crate) parent: Option<Vec<u8>>,
    pub(crate) order: u64,
    pub(crate) task: T,
}

/// Draws them. What ran within a scope that is not among them is a root.
pub(crate) fn draw<T>(mut nodes: Vec<Node<T>>) -> Vec<Leaf<T>> {
    nodes.sort_by_key(|node| node.order);
    let known: HashMap<Vec<u8>, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.id.clone(), at)).collect();
    let mut roots = Vec::new();
    let mut below: Vec<Vec<usize>> = nodes.iter().map(|_| Vec::new()).collect();
    for (at, node) in nodes.iter().enumerate() {
        let parent = node.parent.as_ref().and_then(|parent| known.get(parent).copied());
        match parent.filter(|parent| *parent != at).and_then(|parent| below.get_mut(parent)) {
            Some(children) => children.push(at),
            None => roots.push(at),
        }
    }
    let mut tasks: Vec<Option<T>> = nodes.into_iter().map(|node| Some(node.task)).collect();
    let mut drawn = Vec::with_capacity(tasks.len());
    // From the last one on, so that the first one is taken first. What leads round in a circle has no
    // root; it begins one where it is met.
    let mut rest = (0..tasks.len()).rev();
    let mut waiting: Vec<(usize, String, bool, bool)> = Vec::new();
    waiting.extend(roots.into_iter().rev().map(|at| (at, String::new(), true, true)));
    loop {
        let Some((at, indent, is_root, is_last)) = waiting.pop() else {
            match rest.find(|at| tasks.get(*at).is_some_and(Option::is_some)) {
                Some(at) => {
                    waiting.push((at, String::new(), true, true));
                    continue;
                }
                None => return drawn,
            }
        };
        let Some(task) = tasks.get_mut(at).and_then(Option::take) else { continue };
        let (branch, indent) = match (is_root, is_last) {
            (true, _) => (String::new(), indent),
            (false, false) => (format!("{indent}├─ "), format!("{indent}│  ")),
            (false, true) => (format!("{indent}└─ "), format!("{indent}   ")),
        };
        let children = below.get(at).map(Vec::as_slice).unwrap_or_default();
        for (number, child) in children.iter().enumerate().rev() {
            waiting.push((*child, indent.clone(), false, number + 1 == children.len()));
        }
        drawn.push(Leaf { branch, task });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(tasks: &[(&str, &str)]) -> Vec<String> {
        let node = |(order, (id, parent)): (usize, &(&str, &str))| Node {
            id: id.as_bytes().to_vec(),
            parent: (!parent.is_empty()).then(|| parent.as_bytes().to_vec()),
            order: order as u64,
            task: (*id).to_owned(),
        };
        let nodes = tasks.iter().enumerate().map(node).collect();
        draw(nodes).into_iter().map(|leaf| leaf.branch + &leaf.task).collect()
    }

    #[test]
    fn a_forest_is_drawn() {
        let tasks = [("a", ""), ("b", "a"), ("x", ""), ("c", "b"), ("d", "a"), ("e", "gone")];
        assert_eq!(drawn(&tasks), ["a", "├─ b", "│  └─ c", "└─ d", "x", "e"]);
    }

    /// No ledger records that; a damaged one may say anything.
    #[test]
    fn a_circle_is_drawn_once() {
        let mut all = drawn(&[("a", "b"), ("b", "a"), ("c", "c"), ("d", "")]);
        assert_eq!(all.len(), 4);
        all.sort_unstable();
        assert_eq!(all, ["b", "c", "d", "└─ a"]);
    }
}
